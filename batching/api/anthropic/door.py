"""What all calls of the Anthropic door share: how a key is sent, how they fail, how they are named.

Decides Anthropic's error for each of ours: its type goes by the status. Every answer names its call in
``request-id``, and every error repeats that name. Never knows what a call does.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import uuid_utils
from django.http import HttpRequest, HttpResponseBase
from msgspec import Struct

from batching.api import auth, doors
from batching.api.errors import ApiError, Error, Source
from batching.api.operations import Parameter
from batching.messageresults import error_type

BETA: Final = Parameter(name="beta", about="Sent by beta clients; changes nothing.")
_KEY_HEADER, _CALL_HEADER = "x-api-key", "request-id"
_CALL: Final = "batcher.anthropic_call"


class _Told(Struct, frozen=True):
    type: str
    message: str


class _Body(Struct, frozen=True, kw_only=True):
    type: Literal["error"] = "error"
    error: _Told
    request_id: str


class Problem(ApiError):
    """An error of this door, by its status: ``message`` is told as it is."""

    def __init__(self, status: int, message: str) -> None:
        self._status = status
        super().__init__("invalid_request", message)

    def status_for(self, code: str) -> int:
        """Return the status it was made with."""
        return self._status


class DoorRoute(doors.DoorRoute):
    """A path of the Anthropic door."""

    def answer(self, request: HttpRequest, **values: str) -> HttpResponseBase:
        """Answer a call to this path, whatever happens."""
        auth.also_in(request, _KEY_HEADER)
        answer = super().answer(request, **values)
        answer[_CALL_HEADER] = _call(request)
        return answer

    def retold(self, request: HttpRequest, error: Error, status: int) -> bytes:
        """Return Anthropic's error for one of ours."""
        told = _Told(type=error_type(status), message=_message(error))
        return msgspec.json.encode(_Body(error=told, request_id=_call(request)))


def nothing_here(request: HttpRequest) -> HttpResponseBase:
    """Answer a path under /v1/messages/ that is none of ours."""
    return _NOTHING.answer(request)


class _Nothing(DoorRoute):
    def _answer(self, request: HttpRequest, values: object) -> HttpResponseBase:
        raise Problem(404, f"Not found: {request.method} {request.path[:200]}")


_NOTHING: Final = _Nothing("")


def _call(request: HttpRequest) -> str:
    """Return what this call is called."""
    name: str = request.META.setdefault(_CALL, f"req_{uuid_utils.uuid7().hex}")
    return name


def _message(error: Error) -> str:
    where = _place(error.source)
    return f"{where}: {error.detail}" if where else error.detail


def _place(source: Source | None) -> str:
    return source.pointer.strip("/").replace("/", ".") if source else ""
