"""A call's JSON body as its wire type, with what is wrong worded by the rules of its fields.

Views of single things call `read`; what a request is, `batching.wire` reads itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from django.http import HttpRequest

from batching import wire
from batching.api import reading
from batching.wire import VALIDATION_ERROR, Invalid

_TOLD: Final = ("is missing", "is not a known field here")
"""How the wire's own words end when they say more than a rule would."""

Sent = TypeVar("Sent")


def read(
    request: HttpRequest,
    type_: type[Sent],
    rules: Mapping[str, str],
    *,
    at_most: int = reading.MAX_BODY_BYTES,
) -> Sent:
    """Return the body as ``type_``; an empty one is an empty object. Raises Invalid, or ApiError.

    ``rules`` says what each field must be, by its pointer (``/name``, or a deeper one).
    """
    body = b"".join(reading.pieces(request, at_most=at_most))
    wire.check_encoding(body)
    try:
        return msgspec.json.decode(body or b"{}", type=type_)
    except (msgspec.DecodeError, RecursionError) as problem:
        found = wire.explain(problem)
        member = found.pointer.split("/")[1] if found.pointer else ""
        rule = next((rules[p] for p in (found.pointer, f"/{member}") if p in rules), None)
        if found.code != VALIDATION_ERROR or rule is None or found.detail.endswith(_TOLD):
            raise found from problem
        raise Invalid(
            VALIDATION_ERROR, f"{found.pointer[1:] or 'the body'} {rule}", found.pointer
        ) from problem
