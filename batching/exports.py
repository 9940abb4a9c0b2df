"""Writing exports: which rows first, then line after line, in steps that any worker may take up.

``start`` writes the order down, the clock calls ``step_due`` (through ``admin.exporting``, which knows what a list
shows), downloads read ``path_of``. A step is claimed by the row's fence and the file's lock; it records how far the
file is good, and the next one cuts off what stands behind that. So a worker that dies costs a chunk, and no line is
there twice. Memory does not grow with the export. ``sweep`` removes files whose time is over.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from os import fsync
from pathlib import Path
from typing import IO, Any, Final

from django.conf import settings
from django.db.models import F, QuerySet

from batching import exportlines, walks
from batching.lifecycle import Actor
from batching.models import Export, Request

logger = logging.getLogger(__name__)

KEPT: Final = timedelta(days=7)
"""How long a file is there after it was finished."""
ROOM_BYTES: Final = 500_000_000
"""Disk that an export leaves free."""
_LEASE: Final = timedelta(minutes=2)
_STEP_S: Final = 5.0
_AT_ONCE: Final = 500
_ID_BYTES: Final = 8
_STRAY_AFTER_S: Final = 24 * 3600.0
_AT_ONCE_SWEPT: Final = 100

RowsOf = Callable[[Export], QuerySet[Request]]


class Lost(Exception):
    """Another worker has it, or it was stopped."""


class Hopeless(Exception):
    """It can never be finished: what was written is gone."""


def path_of(export: Export) -> Path:
    """Return where an export's file is."""
    return folder() / export.key


def folder() -> Path:
    """Return the folder of all exports."""
    return Path(settings.DATA_DIR) / "exports"


def _ids_of(export: Export) -> Path:
    return folder() / f"{export.key}.ids"


def start(
    *, query: str, form: str, columns: Sequence[str], by: Actor, reason: str, now: datetime
) -> Export:
    """Order an export of what the list at ``query`` shows; it begins with the clock's next tick."""
    first, top = walks.bounds_of_all(Request)
    chosen = [column for column in exportlines.COLUMNS if column.name in columns]
    export = Export.objects.create(
        query=query,
        form=form,
        columns=[column.name for column in chosen],
        has_payload=any(column.is_payload for column in chosen),
        who=by.name,
        user_id=by.user_id,
        reason=reason[:300],
        first_id=first,
        top_id=top,
        cursor=first - 1,
        next_step_at=now,
        created_at=now,
    )
    logger.info("export started", extra={"export": export.key, "by": by.name})
    return export


def facts_of(export: Export) -> Mapping[str, Any]:
    """Return what the audit log keeps of an export."""
    return {"query": export.query, "form": export.form, "columns": export.columns}


def step_due(now: datetime, *, rows_of: RowsOf) -> int:
    """Go on with exports that are due; return how many lines were written."""

    def step(export: Export, at: datetime) -> int:
        return _step(export, at, rows_of)

    return walks.step_due(Export.objects.due, step, now=now, hopeless=(Hopeless,))


def _step(export: Export, now: datetime, rows_of: RowsOf) -> int:
    """Claim an export and work on it for some seconds; return how many lines were written."""
    claim = Export.objects.filter(
        pk=export.pk, fence=export.fence, state=Export.State.RUNNING, next_step_at__lte=now
    )
    if not claim.update(fence=F("fence") + 1, next_step_at=now + _LEASE):
        return 0
    export.fence += 1
    before, until = export.done, time.monotonic() + _STEP_S
    try:
        _demand_room()
        if export.matched is None:
            _note_ids(export, rows_of(export), until)
        is_done = export.matched is not None and _write(export, until, now)
        if not is_done:
            _record(export, next_step_at=now)
    except Lost:
        logger.info("export is no longer ours", extra={"export": export.key})
    return export.done - before


def _demand_room() -> None:
    folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder()).free
    if free < ROOM_BYTES:
        raise OSError(f"only {free // 1_000_000:,} MB of disk are free where exports are written")


@contextmanager
def _opened(path: Path, size: int) -> Iterator[IO[bytes]]:
    """Open a file that is good up to ``size``, alone, and cut off what stands behind that. Raises Lost, Hopeless."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise Lost from problem
        if file.tell() < size:
            raise Hopeless(f"{path.name} is gone, or shorter than it was written; order it again")
        file.truncate(size)
        file.seek(size)
        yield file


def _keep(file: IO[bytes]) -> None:
    file.flush()
    fsync(file.fileno())


def _note_ids(export: Export, rows: QuerySet[Request], until: float) -> None:
    """Write down which requests are meant, window by window: later changes change nothing about that."""
    with _opened(_ids_of(export), export.counted * _ID_BYTES) as file:
        while export.cursor < export.top_id and time.monotonic() < until:
            window, end = walks.window_of(export, rows)
            ids = array("q", window.order_by("pk").values_list("pk", flat=True))
            file.write(ids.tobytes())
            _keep(file)
            export.cursor, export.counted = end, export.counted + len(ids)
            _record(export, cursor=end, counted=export.counted)
    if export.cursor >= export.top_id:
        export.matched = export.counted
        _record(export, matched=export.counted)


def _write(export: Export, until: float, now: datetime) -> bool:
    """Write the next lines, chunk by chunk; True with the last one: it is done."""
    matched = export.matched or 0
    with _opened(path_of(export), export.size_bytes) as file:
        if not export.size_bytes:
            file.write(exportlines.header(export.form, export.columns))
        while (place := export.done + export.skipped) < matched and time.monotonic() < until:
            ids = _ids_at(export, place)
            written = 0
            for _, line in exportlines.lines(ids, export.columns, export.form):
                file.write(line)
                written += 1
            _keep(file)
            export.done += written
            export.skipped += len(ids) - written
            _record(export, done=export.done, skipped=export.skipped, size_bytes=file.tell())
        _keep(file)
        size = file.tell()
    if export.done + export.skipped < matched:
        return False
    ended = {"state": Export.State.DONE, "ended_at": now, "expires_at": now + KEPT}
    _record(export, size_bytes=size, **ended)
    _ids_of(export).unlink(missing_ok=True)
    logger.info("export done", extra={"export": export.key, "lines": export.done})
    return True


def _ids_at(export: Export, place: int) -> list[int]:
    with _ids_of(export).open("rb") as file:
        file.seek(place * _ID_BYTES)
        ids = array("q")
        ids.frombytes(file.read(_AT_ONCE * _ID_BYTES))
    if not ids:
        raise Hopeless(f"the list of what is meant by {export.key} is gone; order it again")
    return list(ids)


def _record(export: Export, **changes: Any) -> None:
    """Write how far it is. Raises Lost when it is not ours any more."""
    ours = Export.objects.filter(pk=export.pk, fence=export.fence, state=Export.State.RUNNING)
    if not ours.update(tries=0, error="", **changes):
        raise Lost


def sweep(now: datetime) -> int:
    """Remove files whose time is over, and those that no order knows; return how many."""
    gone = list(Export.objects.expired(now)[:_AT_ONCE_SWEPT])
    for export in gone:
        path_of(export).unlink(missing_ok=True)
        _ids_of(export).unlink(missing_ok=True)
        Export.objects.filter(pk=export.pk).update(deleted_at=now)
    return len(gone) + _remove_strays()


def _remove_strays() -> int:
    """Remove files of orders that are gone themselves; by the disk's own clock."""
    before, removed = time.time() - _STRAY_AFTER_S, 0
    for path in folder().glob("exp_*"):
        is_old = path.stat().st_mtime < before
        if (
            is_old
            and not Export.objects.filter(key=path.name.split(".")[0], deleted_at=None).exists()
        ):
            path.unlink(missing_ok=True)
            removed += 1
    return removed
