"""A batch's input file on disk: the same requests always give the same bytes and the same name.

Written to a temporary name, synced, then renamed, so a file under its name is whole. Memory is one
page of requests, and a page is bounded by bytes, not only by rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import models

from batching.models import Batch, Request
from batching.providers.base import Provider

_PAGE_ROWS = 2_000
_PAGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A finished input file."""

    path: Path
    sha256: str
    lines: int
    size_bytes: int


def write(batch: Batch, provider: Provider) -> InputFile:
    """Write the pending requests of ``batch``, in the order of their ids, and return the file."""
    folder = settings.DATA_DIR / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_crash in folder.glob(f"{batch.key}.*.partial"):
        left_by_a_crash.unlink(missing_ok=True)
    partial = folder / f"{batch.key}.{batch.fence}.partial"
    digest, lines, size = hashlib.sha256(), 0, 0
    with partial.open("wb") as file:
        for line in _lines(batch, provider):
            file.write(line)
            digest.update(line)
            lines += 1
            size += len(line)
        file.flush()
        os.fsync(file.fileno())
    path = _path(batch)
    partial.replace(path)
    return InputFile(path=path, sha256=digest.hexdigest(), lines=lines, size_bytes=size)


def kept(batch: Batch, provider: Provider) -> Path | None:
    """Return the file that was written before, or once more when it is gone; None when it is another one now."""
    path = _path(batch)
    if path.exists() and path.stat().st_size == batch.size_bytes:
        return path
    return path if write(batch, provider).sha256 == batch.input_sha256 else None


def discard(batch: Batch) -> None:
    """Remove the file: the provider has it, or nobody will."""
    _path(batch).unlink(missing_ok=True)


def _path(batch: Batch) -> Path:
    return Path(settings.DATA_DIR) / "batches" / f"{batch.key}.jsonl"


def _lines(batch: Batch, provider: Provider) -> Iterator[bytes]:
    endpoint = batch.lane.endpoint
    for first, last in _pages(batch):
        rows = _pending(batch).filter(pk__range=(first, last))
        for key, body in rows.values_list("key", "payload__body"):
            yield provider.render_line(custom_id=key, endpoint=endpoint, body=bytes(body))


def _pages(batch: Batch) -> Iterator[tuple[int, int]]:
    """Yield ranges of request ids, each small enough to be read at once."""
    first = last = None
    rows = size = 0
    for pk, size_bytes in _pending(batch).values_list("pk", "size_bytes").iterator(10_000):
        if first is not None and (rows >= _PAGE_ROWS or size + size_bytes > _PAGE_BYTES):
            yield first, last or first
            first, rows, size = None, 0, 0
        first = pk if first is None else first
        last, rows, size = pk, rows + 1, size + size_bytes
    if first is not None:
        yield first, last or first


def _pending(batch: Batch) -> models.QuerySet[Request]:
    return Request.objects.filter(batch=batch, state="pending").order_by("pk")
