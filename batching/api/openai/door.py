"""What all calls of the OpenAI door share: how they fail, how they list, and how times look.

Decides OpenAI's error for each of ours, always with its four keys. Views raise ApiError or `problem`; the
routes of `urls` turn all of it into answers. Never knows what a call does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from msgspec import Struct

from batching.api import doors, errors, reading
from batching.api.errors import ApiError, Error, Source
from batching.api.operations import render
from batching.wire import Invalid

INVALID: Final = "invalid_request_error"
_TYPES: Final = {401: INVALID, 403: INVALID, 429: "rate_limit_error"}
_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "not_found": None,
    "invalid_parameter": "invalid_value",
    "validation_error": "invalid_value",
    "malformed_json": None,
}


class _Told(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class _Body(Struct, frozen=True):
    error: _Told


class Problem(ApiError):
    """An error in OpenAI's own words; ``code`` may be absent, as OpenAI's often is."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(code or "invalid_request", message)
        self.status = status
        self.told = _Told(message=message, type=_kind(status), param=param, code=code)

    def response(self) -> HttpResponse:
        """Return the HTTP answer that says so."""
        return render(msgspec.json.encode(_Body(error=self.told)), self.status)


def missing(param: str) -> Problem:
    """Return the 400 for a parameter that was not sent."""
    message = f"Missing required parameter: '{param}'."
    return Problem(400, message, param=param, code="missing_required_parameter")


def wrong_value(param: str, why: str) -> Problem:
    """Return the 400 for a value that can't be taken; ``why`` goes on after "Invalid 'param': "."""
    return Problem(400, f"Invalid '{param}': {why}.", param=param, code="invalid_value")


class DoorRoute(doors.DoorRoute):
    """A path of the OpenAI door."""

    def retold(self, request: HttpRequest, error: Error, status: int) -> bytes:
        """Return OpenAI's error for one of ours."""
        return msgspec.json.encode(_Body(error=_told(error, status)))


def _told(error: Error, status: int) -> _Told:
    return _Told(
        message=f"{error.detail[:1].upper()}{error.detail[1:]}.",
        type=_kind(status),
        param=_param(error.source),
        code=_CODES.get(error.code, error.code),
    )


def _kind(status: int) -> str:
    return "server_error" if status >= 500 else _TYPES.get(status, INVALID)


def _param(source: Source | None) -> str | None:
    if source is None:
        return None
    return source.parameter or source.pointer.strip("/").replace("/", ".") or None


def nothing_here(request: HttpRequest) -> HttpResponseBase:
    """Answer a path under /v1 that is none of ours."""
    message = f"Invalid URL ({request.method} {request.path[:200]})"
    return Problem(404, message).response()


def unix(at: datetime | None) -> int | None:
    """Return a moment in Unix seconds."""
    return None if at is None else int(at.timestamp())


def listed(data: Sequence[Any], *, has_more: bool) -> HttpResponse:
    """Return one page of a list; every object in it has an ``id``."""
    page = {
        "object": "list",
        "data": data,
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": has_more,
    }
    return render(msgspec.json.encode(page))


def read_body(request: HttpRequest, shape: type[Any]) -> Any:
    """Return a JSON body of that shape. Raises Problem in OpenAI's words."""
    data = reading.read_body(request)
    try:
        return msgspec.json.decode(data or b"{}", type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unread(error) from error


def _unread(error: Exception) -> Problem:
    from batching import wire

    found: Invalid = wire.explain(error)
    param = found.pointer.strip("/").replace("/", ".") or None
    if found.detail.endswith(" is missing") and param:
        return missing(param)
    if param is None:
        message = "We could not parse the JSON body of your request."
        return Problem(400, message)
    return wrong_value(param, found.detail)


__all__ = [
    "DoorRoute",
    "Problem",
    "errors",
    "listed",
    "missing",
    "nothing_here",
    "read_body",
    "unix",
    "wrong_value",
]
