"""What a call of one request says in its headers: how long it waits, and what becomes of the request.

Decides the headers' names and how they are read; `call_views` calls it. The body stays as OpenAI's SDK makes
it: nothing of ours is looked for in it. Never touches the database.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest

from batching.api.errors import ApiError, Source
from batching.api.operations import wrong_parameter

PREFER: Final = "Prefer"
APPLIED: Final = "Preference-Applied"
WAIT: Final = "X-Batcher-Wait"
CUSTOM_ID: Final = "X-Batcher-Custom-Id"
MAX_WAIT_S: Final = 3_600
SEAL_AFTER_S: Final = 5
"""How long a request from here may wait for company, unless it says: an answer takes the provider minutes,
and a batch a tick would soon meet the provider's limit on batches an hour."""
_FIELDS: Final = {
    "X-Batcher-Max-Wait": "max_wait_s",
    "X-Batcher-Priority": "priority",
    "X-Batcher-Deliver-By": "deliver_by",
    "X-Batcher-Account": "account",
}
_DESTINATION, _WEBHOOK_URL = "X-Batcher-Destination", "X-Batcher-Webhook-Url"
_READ_TIMEOUT, _RETRY_COUNT = "X-Stainless-Read-Timeout", "X-Stainless-Retry-Count"
_HEADER_OF: Final = {
    "/custom_id": CUSTOM_ID,
    "/delivery_config": _DESTINATION,
    "/delivery_config/name": _DESTINATION,
    "/delivery_config/webhook_url": _WEBHOOK_URL,
    **{f"/{field}": header for header, field in _FIELDS.items()},
}


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long a call is held open."""

    seconds: int
    is_preference: bool
    """Asked for with ``Prefer``, and so to be confirmed."""
    patience_s: float = math.inf
    """After so many seconds the client itself hangs up."""

    @property
    def held_s(self) -> float:
        """How long holding it makes sense."""
        return min(self.seconds, self.patience_s)


def wait_of(request: HttpRequest, *, default_s: int) -> Wait:
    """Return how long a call waits: as it says, at most an hour. Raises ApiError 400."""
    patience_s = _patience_s(request)
    if (given := request.headers.get(WAIT)) is not None:
        return Wait(seconds=_seconds(given, WAIT), is_preference=False, patience_s=patience_s)
    preferences = _preferences(request.headers.get(PREFER, ""))
    if (given := preferences.get("wait")) is not None:
        return Wait(seconds=_seconds(given, PREFER), is_preference=True, patience_s=patience_s)
    seconds = 0 if "respond-async" in preferences else default_s
    return Wait(seconds=seconds, is_preference=False, patience_s=patience_s)


def _preferences(header: str) -> dict[str, str]:
    """Read RFC 7240's list: the first of a name counts, names have no case."""
    found: dict[str, str] = {}
    for preference in header.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _seconds(given: str, header: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise wrong_parameter(header, "must give the wait in whole seconds, like wait=60")
    return min(int(given), MAX_WAIT_S)


def _patience_s(request: HttpRequest) -> float:
    """Return when OpenAI's SDK hangs up, which it tells, and a second more so that it is the first to."""
    given = request.headers.get(_READ_TIMEOUT, "")
    return float(given) + 1 if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given) else math.inf


def is_tried_again(request: HttpRequest) -> bool:
    """Tell whether OpenAI's SDK made this very call before and got no good answer."""
    return request.headers.get(_RETRY_COUNT, "0") not in ("", "0")


def fields_of(request: HttpRequest) -> dict[str, object]:
    """Return what the headers say of the request, as fields of one. Raises ApiError 400."""
    found: dict[str, object] = {"max_wait_s": SEAL_AFTER_S}
    for header, field in _FIELDS.items():
        if (given := text_of(request, header)) is not None:
            found[field] = int(given) if re.fullmatch(r"-?[0-9]{1,9}", given) else given
    name, url = text_of(request, _DESTINATION), text_of(request, _WEBHOOK_URL)
    if name is not None and url is not None:
        raise wrong_parameter(_WEBHOOK_URL, f"can't stand beside {_DESTINATION}")
    if name is not None:
        found["delivery_config"] = {"type": "destination", "name": name}
    if url is not None:
        found["delivery_config"] = {"type": "webhook", "webhook_url": url}
    return found


def text_of(request: HttpRequest, header: str) -> str | None:
    """Return what a header says; None without it. Raises ApiError 400: headers have no encoding."""
    given = request.headers.get(header)
    if given is not None and not given.isascii():
        raise wrong_parameter(header, "must be ASCII, as it is a header")
    return given


def problem(code: str, detail: str, pointer: str) -> ApiError:
    """Return an error of a request in words of the call: a header's name, or a place in the body."""
    if header := _HEADER_OF.get(pointer):
        return ApiError(code, detail, source=Source(parameter=header))
    within = pointer.removeprefix("/body") if pointer.startswith("/body") else ""
    return ApiError(code, detail, source=Source(pointer=within) if within else None)
