"""What the doors share that speak another API: how their routes fail, how their batches are called, and where
a batch's results go.

Decides nothing about words: each door puts errors into its own API's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from batching import wire
from batching.api.auth import Caller
from batching.api.errors import Error, Errors
from batching.api.operations import JSON, Route
from batching.models import Destination, Submission
from batching.wire import VALIDATION_ERROR, Invalid

_OURS: Final = "sub_"
_UNPROCESSABLE, _BAD = 422, 400


class AsItCame(HttpResponse):
    """An answer of the provider, which is handed on as it is."""


class DoorRoute(Route):
    """A path under /v1: like any other, but for the words of its errors."""

    @abstractmethod
    def retold(self, request: HttpRequest, error: Error, status: int) -> bytes:
        """Return the body that says this error, in the words of the API that the door speaks."""

    def _answer_somehow(self, request: HttpRequest, values: Mapping[str, str]) -> HttpResponseBase:
        answer = super()._answer_somehow(request, values)
        if answer.status_code >= 400 and isinstance(answer, HttpResponse):
            self._retell(request, answer)
        return answer

    def _retell(self, request: HttpRequest, answer: HttpResponse) -> None:
        """Put an error of ours into the door's words; its headers stay."""
        if isinstance(answer, AsItCame) or not answer.get("Content-Type", "").startswith(JSON):
            return
        try:
            (error, *_) = msgspec.json.decode(answer.content, type=Errors).errors
        except msgspec.DecodeError:  # it is in the door's words already
            return
        if answer.status_code == _UNPROCESSABLE:
            answer.status_code = _BAD
        answer.content = self.retold(request, error, answer.status_code)


def client_id(row: Submission, prefix: str) -> str:
    """Return what a client calls its batch."""
    return prefix + row.key.removeprefix(_OURS)


def key_of(batch_id: str, prefix: str) -> str:
    """Return the key of the submission that a client calls so; one that is nobody's for other words."""
    if not batch_id.startswith(prefix) or "\0" in batch_id:
        return ""
    return _OURS + batch_id.removeprefix(prefix)


def checked_delivery(caller: Caller, config: bytes) -> dict[str, Any] | None:
    """Return where a batch's results go, as it was sent; None: they are pulled. Raises Invalid."""
    if config in (b"", b"null"):
        return None
    delivery = wire.read_delivery(config)
    if delivery.type == "destination":
        mine = Destination.objects.filter(project=caller.project, name=delivery.name)
        if not mine.exists():
            detail = f"there is no destination {delivery.name!r}"
            raise Invalid(VALIDATION_ERROR, detail, "/delivery_config/name")
    sent: dict[str, Any] = msgspec.json.decode(config)
    return sent
