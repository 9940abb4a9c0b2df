"""The same call made again: with an ``Idempotency-Key`` it is done once and answered alike.

Decides what a repeat is (same key, same method, path, query and body bytes) and what is kept: answers that
are a success, small and no secret. Any other answer leaves nothing behind, for then the call may simply be made anew:
a failed one changed nothing, and a bulk upload's big answer stands for lines that are never stored twice. The
body is hashed as it streams, so an upload is neither held nor spooled; a repeat of it is read to its end and
dropped. A call that never ended (its process died) is free again after LEASE. `operations` asks for each POST
but those that know their repeats themselves.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, cast

from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone

from batching.api import reading
from batching.api.errors import ApiError
from batching.models import ApiKey, KeptAnswer
from batching.models.manners import KEPT_FOR

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
MAX_KEPT_BYTES: Final = 256 * 1024
LEASE: Final = timedelta(minutes=15)
_PIECE = 256 * 1024


def once(
    request: HttpRequest, key: ApiKey, make: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    """Return what ``make`` answers, or what it answered to this very call before.

    Raises ApiError: 400 for a wrong header, 409 while the first call is under way, 422 when its key was
    used for another call.
    """
    name = name_of(request)
    if name is None or request.method != "POST":
        return make()
    body = _Hashed(request)
    row, is_ours = _claim(key, name, timezone.now())
    if not is_ours:
        return _again(row, body)
    try:
        answer = make()
    except BaseException:
        _ours(row).delete()
        raise
    _keep(row, answer, body)
    return answer


def name_of(request: HttpRequest) -> str | None:
    """Return what a call names itself by; None when it does not. Raises ApiError 400."""
    name = request.headers.get(HEADER)
    if name is not None and not (1 <= len(name) <= 255 and name.isascii() and name.isprintable()):
        raise ApiError("invalid_idempotency_key", f"{HEADER} has 1 to 255 printable characters")
    return name


class _Hashed:
    """The body of a call, hashed as it is read."""

    def __init__(self, request: HttpRequest) -> None:
        self._source = request.META["wsgi.input"]
        length = request.META.get("CONTENT_LENGTH") or ""
        is_chunked = "chunked" in request.headers.get("Transfer-Encoding", "").lower()
        self._left = None if is_chunked else int(length) if length.isdecimal() else 0
        about = f"{request.method}\n{request.get_full_path()}\n"
        self._hash = hashlib.sha256(about.encode("utf-8", "surrogateescape"))
        request.META["wsgi.input"] = self
        hashed = LimitedStream(cast(Any, self), self._left or 0)
        cast(Any, request)._stream = hashed  # Django's own way to the body

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        piece: bytes = self._source.read(size)
        self._hash.update(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def readline(self, size: int = -1, /) -> bytes:
        """Read on, to the end of a line."""
        piece: bytes = self._source.readline(size)
        self._hash.update(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def digest(self) -> str:
        """Read what nobody read, and return the hash of the whole call. Raises ApiError 400."""
        read = 0
        while self._left is None or self._left > 0:
            try:
                piece = self.read(_PIECE if self._left is None else min(self._left, _PIECE))
            except OSError as problem:
                raise ApiError("incomplete_body", "the body broke off") from problem
            read += len(piece)
            if not piece:
                break
            if read > reading.MAX_UPLOAD_BYTES:
                raise reading.too_large(reading.MAX_UPLOAD_BYTES)
        return self._hash.hexdigest()


def _claim(key: ApiKey, name: str, now: datetime) -> tuple[KeptAnswer, bool]:
    """Return the row of this name, and whether the call is ours to make."""
    token = uuid.uuid4().hex
    row = KeptAnswer(key=key, name=name, token=token, began_at=now)
    KeptAnswer.objects.bulk_create([row], ignore_conflicts=True)
    found = KeptAnswer.objects.filter(key=key, name=name).first()
    if found is None:  # released between the two
        return _claim(key, name, now)
    if found.token == token:
        return found, True
    age = now - found.began_at
    if age < (LEASE if found.status is None else KEPT_FOR):
        return found, False
    freed: dict[str, Any] = {"token": token, "began_at": now, "status": None, "body": None}
    is_ours = bool(_ours(found).update(**freed))
    found.refresh_from_db()
    return found, is_ours


def _ours(row: KeptAnswer) -> Any:
    return KeptAnswer.objects.filter(pk=row.pk, token=row.token)


def _again(row: KeptAnswer, body: _Hashed) -> HttpResponse:
    if row.status is None:
        detail = f"the first call with this {HEADER} is under way; ask again"
        raise ApiError("idempotency_in_flight", detail, headers={"Retry-After": "1"})
    if row.call_sha256 != body.digest():
        raise ApiError("idempotency_key_reused", f"this {HEADER} was used for another call")
    return HttpResponse(
        bytes(row.body or b""),
        status=row.status,
        content_type=row.content_type,
        headers={REPLAYED: "true"},
    )


def _keep(row: KeptAnswer, answer: HttpResponseBase, body: _Hashed) -> None:
    """Keep an answer for repeats; what was done stays done, whether it can be kept or not."""
    try:
        call_sha256 = body.digest()
    except ApiError:
        call_sha256 = ""
    if not call_sha256 or not isinstance(answer, HttpResponse) or not _is_kept(answer):
        _ours(row).delete()
        return
    _ours(row).update(
        status=answer.status_code,
        call_sha256=call_sha256,
        content_type=answer.get("Content-Type", "")[:100],
        body=answer.content,
    )


def _is_kept(answer: HttpResponse) -> bool:
    is_secret = answer.get("Cache-Control") == "no-store"
    is_good = 200 <= answer.status_code < 300
    return is_good and not is_secret and len(answer.content) <= MAX_KEPT_BYTES
