"""What a client receives for a request: the provider's line with the client's own id, and our words.

The response and the error are spliced in as the bytes that came, never re-encoded. Used by delivery
and by the API for clients that pull, so both say the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from batching.models import Answer, Request

_NULL = Raw(b"null")
_SPACE = re.compile(r"[ \t\r\n]*")


class _Line(msgspec.Struct):
    """The members of a provider's line that are handed on."""

    id: Raw = _NULL
    response: Raw = _NULL
    error: Raw = _NULL


class Usage(msgspec.Struct, kw_only=True):
    """Tokens that the provider counted; null where it did not say."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None


class _Error(msgspec.Struct):
    code: str
    message: str


class Envelope(msgspec.Struct, kw_only=True):
    """The JSON that is delivered."""

    id: Raw
    custom_id: str
    response: Raw
    error: Raw
    outcome: str
    metadata: Raw
    usage: Usage | None
    cost: None = None


_read = msgspec.json.Decoder(_Line)


def render(request: Request, answer: Answer | None, metadata: bytes) -> bytes:
    """Return the envelope of an ended request as JSON.

    ``answer`` is the one of its present attempt, None when it ended without one: then ``error`` says
    why. ``metadata`` is the client's JSON object.
    """
    line = _members(bytes(answer.line)) if answer else _Line()
    error = line.error
    if answer is None or request.outcome in ("expired", "cancelled"):
        error = Raw(msgspec.json.encode(_Error(request.error_code, request.error_message)))
    return msgspec.json.encode(
        Envelope(
            id=line.id if answer else Raw(msgspec.json.encode(request.key)),
            custom_id=request.custom_id,
            response=line.response,
            error=error,
            outcome=request.outcome,
            metadata=Raw(metadata),
            usage=_usage(answer),
        )
    )


def _members(line: bytes) -> _Line:
    """Return the members that are handed on, as the bytes that came.

    msgspec refuses a lone surrogate escape even where it only skips; such a line is walked by the
    standard library, over Latin-1, where one character is one byte.
    """
    try:
        return _read.decode(line)
    except msgspec.DecodeError:
        found = dict(_walk(line.decode("latin-1")))
    return _Line(
        **{
            name: Raw(found[name].encode("latin-1"))
            for name in _Line.__struct_fields__
            if name in found
        }
    )


def _walk(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and the raw texts of the members of a JSON object."""
    scan, place = json.JSONDecoder(strict=False).raw_decode, _SPACE.match(text).end() + 1
    while True:
        place = _SPACE.match(text, place).end()
        if text[place] in "},":
            if text[place] == "}":
                return
            place += 1
            continue
        name, place = scan(text, place)
        place = _SPACE.match(text, _SPACE.match(text, place).end() + 1).end()
        _, end = scan(text, place)
        yield name, text[place:end]
        place = end


def _usage(answer: Answer | None) -> Usage | None:
    if answer is None or (answer.input_tokens is None and answer.output_tokens is None):
        return None
    return Usage(
        input_tokens=answer.input_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        reasoning_tokens=answer.reasoning_tokens,
    )
