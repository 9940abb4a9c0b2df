"""The bytes of clients' files on disk: written whole or not at all, and removed when their time is over.

Decides where they are (one folder under DATA_DIR, named by our keys, never by a client's words) and what is
rubbish there. The front doors write and read, `clientbatch` reads; `sweep` is rung by the clock. A file under
its name is whole: it is written under another one, synced, then renamed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from os import fsync
from pathlib import Path
from typing import IO, Final, Self

from django.conf import settings
from django.db.models import Q

from batching.models import ClientFile, FileUpload, UploadPart

PIECE_BYTES: Final = 1024 * 1024
_STRAY_AFTER_S = 24 * 3600.0
_PARTIAL = ".partial"
_AT_ONCE = 1_000


def path_of(key: str) -> Path:
    """Return where the bytes of a file, or of a part of one, are."""
    return _folder() / key


def _folder() -> Path:
    return Path(settings.DATA_DIR) / "files"


class Incoming:
    """A file on its way in: counts and digests what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._file.write(piece)
        self._sha256.update(piece)
        self.size_bytes += len(piece)

    @property
    def sha256(self) -> str:
        """The hex digest of what came so far."""
        return self._sha256.hexdigest()


@contextmanager
def incoming(key: str) -> Iterator[Incoming]:
    """Write a file: it is under its key when the block ends, and nowhere when the block raises."""
    _folder().mkdir(parents=True, exist_ok=True)
    partial = _folder() / f"{key}{_PARTIAL}"
    try:
        with partial.open("wb") as file:
            yield Incoming(file)
            file.flush()
            fsync(file.fileno())
        partial.replace(path_of(key))
    finally:
        partial.unlink(missing_ok=True)


class Outgoing:
    """Bytes of a file from one place to another, read piece by piece; closes what it opened."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self._file = path.open("rb")
        self._file.seek(start)
        self._left = end - start

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = self._file.read(min(self._left, PIECE_BYTES)) if self._left else b""
        if not piece:
            raise StopIteration
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the file; Django calls it when the answer is sent or broken off."""
        self._file.close()


def pieces(key: str) -> Iterator[bytes]:
    """Yield all bytes under a key."""
    with path_of(key).open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def count_lines(key: str) -> int:
    """Return how many lines a file has, blank ones too; 0 for one that is gone."""
    lines, last = 0, b"\n"
    try:
        for piece in pieces(key):
            lines, last = lines + piece.count(b"\n"), piece[-1:]
    except FileNotFoundError:
        return 0
    return lines + (last != b"\n")


def delete(file: ClientFile, now: datetime) -> None:
    """Delete a file for good: its name first, so that nobody opens what is going."""
    ClientFile.objects.filter(pk=file.pk).update(deleted_at=now)
    path_of(file.key).unlink(missing_ok=True)


def drop_parts(upload: FileUpload) -> int:
    """Remove the parts of an upload that ended; return how many."""
    return _drop(UploadPart.objects.filter(upload=upload))


def _drop(parts: Iterable[UploadPart]) -> int:
    gone = list(parts)
    for part in gone:
        path_of(part.key).unlink(missing_ok=True)
    UploadPart.objects.filter(pk__in=[part.pk for part in gone]).delete()
    return len(gone)


def sweep(now: datetime) -> int:
    """Remove expired files, parts of uploads that ended, and what broken uploads left; return how many."""
    expired = ClientFile.objects.filter(deleted_at__isnull=True, expires_at__lte=now)[:_AT_ONCE]
    gone = list(expired)
    for file in gone:
        delete(file, now)
    ended = Q(upload__expires_at__lte=now) | Q(upload__cancelled_at__isnull=False)
    ended |= Q(upload__file__isnull=False)
    parts = UploadPart.objects.filter(ended).order_by("pk")[:_AT_ONCE]
    return len(gone) + _drop(parts) + _remove_strays(timedelta(seconds=_STRAY_AFTER_S))


def _remove_strays(age: timedelta) -> int:
    """Remove what a killed process was writing; by the disk's own clock."""
    before, removed = time.time() - age.total_seconds(), 0
    for partial in _folder().glob(f"*{_PARTIAL}"):
        try:
            if partial.stat().st_mtime < before:
                partial.unlink()
                removed += 1
        except FileNotFoundError:  # finished in between
            continue
    return removed
