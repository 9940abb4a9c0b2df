"""A bulk upload: lines checked and stored a chunk at a time, each told apart from the others.

`receive` stores each chunk as it comes; `receive_whole` checks the whole upload first and stores it in one
transaction or not at all. `intake_views` calls them. Memory holds one chunk and the first errors, however
long the upload is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import F
from django.utils import timezone

from batching import intake, wire
from batching.api import pace, reading
from batching.api.auth import Caller
from batching.api.errors import ApiError, Error, Source, status_of, title_of
from batching.api.shapes import BulkTaken, LineError
from batching.intake import Rejected
from batching.models import Submission
from batching.wire import Invalid, Line

CHUNK_LINES: Final = 2_000
CHUNK_BYTES: Final = 16 * 1024 * 1024
MAX_ERRORS: Final = 1_000
"""Errors that are told of one upload; the others are counted."""


class Upload:
    """One upload: its submission, and what became of its lines so far."""

    def __init__(self, caller: Caller, earlier: Submission | None = None) -> None:
        self._caller = caller
        self._submission = earlier or Submission(project=caller.project, api_key=caller.key)
        self._accepted = self._duplicates = self._rejected = 0
        self._told = (0, 0, 0)
        self._stored_chunks = 0
        self._chunk: list[tuple[int, Line]] = []
        self._chunk_errors: list[LineError] = []
        self._chunk_bytes = 0
        self.errors: list[LineError] = []

    @property
    def rejected(self) -> int:
        """Lines not taken so far."""
        return self._rejected + len(self._chunk_errors)

    @property
    def errors_left_out(self) -> int:
        """Errors beyond those that are told."""
        return self._rejected - len(self.errors)

    @property
    def is_stored(self) -> bool:
        """True once there is something in the database that tells of this upload."""
        return self._stored_chunks > 0

    def add(self, number: int, data: bytes | None) -> None:
        """Check a line, and store the chunk when this fills it."""
        line = self.checked(number, data)
        if line is not None:
            self._chunk.append((number, line))
            self._chunk_bytes += len(line.body)
        is_full = len(self._chunk) + len(self._chunk_errors) >= CHUNK_LINES
        if is_full or self._chunk_bytes >= CHUNK_BYTES:
            self.store_chunk(timezone.now())

    def checked(self, number: int, data: bytes | None) -> Line | None:
        """Return the line when it is right; else note why not."""
        if data is None:
            most = f"longer than {reading.MAX_BODY_BYTES:,} bytes"
            self.refuse(number, "too_large", most)
            return None
        try:
            return wire.read_line(data)
        except Invalid as problem:
            self.refuse(number, problem.code, problem.detail, problem.pointer)
            return None

    def refuse(self, number: int, code: str, detail: str, pointer: str = "") -> None:
        """Note that a line is not taken."""
        self._chunk_errors.append(LineError(line=number, code=code, detail=detail, pointer=pointer))
        if len(self._chunk_errors) >= 2 * CHUNK_LINES:
            self._count_errors()

    def store_chunk(self, now: datetime) -> None:
        """Store the lines at hand, count them, and go on with an empty chunk."""
        if self._submission._state.adding:
            self._submission.save(force_insert=True)
        self._stored_chunks += 1
        lines = [line for _, line in self._chunk]
        answers = intake.accept(
            self._caller.project,
            lines,
            submission=self._submission,
            key=self._caller.key,
            by=self._caller.actor,
            now=now,
        )
        pace.charge_lines(self._caller.key, len(lines))
        for (number, _), answer in zip(self._chunk, answers, strict=True):
            if isinstance(answer, Rejected):
                self.refuse(number, answer.code, answer.detail, answer.pointer)
            elif answer.is_new:
                self._accepted += 1
            else:
                self._duplicates += 1
        self._count_errors()
        self._add_up()
        self._chunk, self._chunk_bytes = [], 0

    def _add_up(self) -> None:
        """Add what is new to the row's counts; another upload may add to the same submission."""
        told, self._told = self._told, (self._accepted, self._duplicates, self._rejected)
        Submission.objects.filter(pk=self._submission.pk).update(
            accepted=F("accepted") + self._accepted - told[0],
            duplicates=F("duplicates") + self._duplicates - told[1],
            rejected=F("rejected") + self._rejected - told[2],
        )

    def _count_errors(self) -> None:
        self._rejected += len(self._chunk_errors)
        room = MAX_ERRORS - len(self.errors)
        self.errors += sorted(self._chunk_errors, key=lambda e: e.line)[:room]
        self._chunk_errors = []

    def finish(self, now: datetime) -> None:
        """Store what is left and note that the upload was read to its end."""
        self.store_chunk(now)
        self._submission.finished_at = now
        self._submission.save(update_fields=["finished_at"])

    def result(self) -> BulkTaken:
        """Return what became of the upload."""
        return BulkTaken(
            submission=self._submission.key,
            accepted=self._accepted,
            duplicates=self._duplicates,
            rejected=self._rejected,
            errors=self.errors,
            errors_left_out=self.errors_left_out,
        )

    def problems(self) -> list[Error]:
        """Return the errors as those of a call that failed."""
        self._count_errors()
        return [
            Error(
                status=str(status_of(e.code)),
                code=e.code,
                title=title_of(e.code),
                detail=e.detail,
                source=Source(pointer=e.pointer),
                line=e.line,
            )
            for e in self.errors
        ]


def receive(upload: Upload, came: Iterator[bytes]) -> None:
    """Store each chunk as it comes. Raises ApiError when nothing could be read at all.

    When the body breaks off after something was stored, the line at which it did is an error.
    """
    number = 0
    try:
        for number, line in reading.lines(came, longest=reading.MAX_BODY_BYTES):
            upload.add(number, line)
    except ApiError as broken:
        if not upload.is_stored:
            raise
        upload.refuse(number + 1, broken.error.code, broken.error.detail)
        upload.store_chunk(timezone.now())
        return
    _require_lines(number)
    upload.finish(timezone.now())


def receive_whole(upload: Upload, came: Iterator[bytes]) -> None:
    """Store all lines or none: with ``upload.rejected`` above 0 afterwards, nothing was stored.

    The whole upload is read and checked before the transaction begins, so that a slow client holds
    no lock.
    """
    with tempfile.TemporaryFile(dir=Path(settings.DATA_DIR)) as spool:
        number = 0
        for number, line in reading.lines(_kept(came, spool), longest=reading.MAX_BODY_BYTES):
            upload.checked(number, line)
        _require_lines(number)
        if not upload.rejected:
            _store_whole(upload, spool)


def _store_whole(upload: Upload, spool: IO[bytes]) -> None:
    spool.seek(0)
    pieces = iter(lambda: spool.read(1024 * 1024), b"")
    try:
        with transaction.atomic():
            for number, line in reading.lines(pieces, longest=reading.MAX_BODY_BYTES):
                upload.add(number, line)
            upload.finish(timezone.now())
            if upload.rejected:
                transaction.set_rollback(True)
    except OperationalError as problem:
        if getattr(problem.__cause__, "sqlstate", "") != "40P01":  # deadlock_detected
            raise
        detail = "another upload stores the same ids right now; nothing was stored, send it again"
        raise ApiError("try_again", detail, headers={"Retry-After": "1"}) from problem


def _kept(came: Iterator[bytes], spool: IO[bytes]) -> Iterator[bytes]:
    for piece in came:
        spool.write(piece)
        yield piece


def _require_lines(number: int) -> None:
    if not number:
        raise ApiError("validation_error", "the upload has no line", source=Source())
