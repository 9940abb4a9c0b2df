"""Reads tables that only grow, from a bookmark on, and adds what it finds to the tallies.

Three are read: the transition log and the answers (``tally_sources``), and the attempts (delivery). Counting
costs the hot paths nothing, and a chart never reads a hot table. A chunk's counts and the bookmark behind it
are one transaction, so a worker that dies leaves neither a gap nor a row counted twice; what lay before the
first run is read like everything else. See docs/decisions/0009-tallies.md.

Measures of a Tally, and what their names are:
``moved``: ``pending>processing``, a request's state before and after; ``>pending`` when it was accepted.
``ended``: ``failed:rate_limit_exceeded``, a bad end and its error's code.
``tried``: ``delivered``, ``timeout``, ``http_status:503``: how an attempt at delivery ended.
``turnaround``: the number of a bucket of ``turnaround_bounds_s``, from intake to first delivery.
``spent``: ``cost``, ``ordinary`` (nano-dollars), ``input``, ``output`` (tokens).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.db import connection, models, transaction

from batching.models import Bookmark, Spend, Tally
from batching.models.tallies import ALWAYS, EPOCH, KEPT
from batching.staging import sql_value

logger = logging.getLogger(__name__)

MOVED, ENDED, TRIED, TURNAROUND, SPENT = "moved", "ended", "tried", "turnaround", "spent"
ACCEPTED: Final = ">pending"
OTHER: Final = "other"
"""Stands for the rest where there are too many names."""
_NAMES_AT_ONCE = 20
"""Names of one measure that a chunk may bring; error codes are the providers' words, and may be anything."""
_LONGEST_NAME = 60
_CHUNK = 20_000
"""Rows read at once: some tenths of a second."""
_RUN_S = 4.0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """So many of a kind within one minute."""

    minute: datetime
    measure: str
    name: str
    count: int
    first_id: int = 0
    last_id: int = 0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a project's answers from one lane used and cost, within one day."""

    day: date
    project_id: int
    lane_id: int
    is_batch: bool
    answers: int
    unpriced: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano: int
    ordinary_nano: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a chunk of a table comes to."""

    counted: Sequence[Counted] = ()
    spent: Sequence[Spent] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table that only grows, and how a chunk of it is counted."""

    name: str
    model: type[models.Model]
    read: Callable[[int, int], Found]
    """Called with two ids: count what comes after the first, up to the second."""


def turnaround_bounds_s() -> tuple[float, ...]:
    """Return the upper bounds of the buckets, in seconds: each half as long again as one before, 1 s to 11 d."""
    return tuple(round(1.5**power, 3) for power in range(35))


def fold(source: Source, now: datetime) -> int:
    """Count what is new in a table, chunk by chunk, for some seconds; return how many ids it went on."""
    until = time.monotonic() + _RUN_S
    mark, _ = Bookmark.objects.get_or_create(source=source.name)
    began, newest = mark.last_id, _newest_readable(mark, source)
    while mark.last_id < newest and time.monotonic() < until:
        after = _last_before_next(source, mark.last_id)
        upto = min(after + _CHUNK, newest)
        if not _add_chunk(mark, upto, source.read(after, upto), now):
            return 0  # another worker was first
        mark.last_id = upto
    if mark.last_id >= newest:
        Bookmark.objects.filter(pk=mark.pk, last_id=mark.last_id).update(counted_at=now)
    return mark.last_id - began


def _newest_readable(mark: Bookmark, source: Source) -> int:
    """Return an id up to which every row that will ever be there can be read now."""
    newest: int = source.model._base_manager.aggregate(at=models.Max("pk"))["at"] or 0
    if connection.vendor != "postgresql":
        return newest  # one writer at a time: ids come in the order of commits
    writers = _writers(source.model._meta.db_table)
    if not writers:
        return newest
    readable = mark.last_id
    if not writers & set(mark.writers):
        # Those that wrote when seen_id was the newest are done.
        readable = max(readable, mark.seen_id)
        Bookmark.objects.filter(pk=mark.pk).update(seen_id=newest, writers=sorted(writers))
    return readable


def _writers(table: str) -> set[str]:
    """Return the transactions of others that write to a table now, by the locks that they hold to their end.

    An INSERT takes its lock before its first id. So whoever got an id up to the newest one is among them,
    if it was read before, or is done (PostgreSQL 15, "Explicit Locking"; CREATE INDEX CONCURRENTLY waits so).
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted"
            " AND mode = 'RowExclusiveLock' AND relation = %s::regclass AND pid <> pg_backend_pid()"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [table],
        )
        return {row[0] for row in cursor.fetchall()}


def _last_before_next(source: Source, last_id: int) -> int:
    """Return the id before the next row there is: numbers that nobody got are not walked through."""
    rows = source.model._base_manager.filter(pk__gt=last_id)
    following: int | None = rows.aggregate(at=models.Min("pk"))["at"]
    return last_id if following is None else following - 1


def _add_chunk(mark: Bookmark, upto: int, found: Found, now: datetime) -> bool:
    """Move the bookmark on and add the chunk's counts, or neither; False when it is not where it was."""
    with transaction.atomic():
        ours = Bookmark.objects.filter(pk=mark.pk, last_id=mark.last_id)
        if not ours.update(last_id=upto):
            return False
        _add(widened(few_names(found.counted), now))
        _add_spent(found.spent)
    return True


def few_names(counted: Iterable[Counted]) -> list[Counted]:
    """Let all but the most frequent error codes of a chunk be ``other``, each under its bad end."""
    found = list(counted)
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in found:
        totals[one.measure, one.name] += one.count
    ends = sorted((key for key in totals if key[0] == ENDED), key=lambda key: -totals[key])
    rest = set(ends[_NAMES_AT_ONCE:])
    return [
        one
        if (one.measure, one.name) not in rest
        else Counted(
            minute=one.minute,
            measure=ENDED,
            name=f"{one.name.partition(':')[0]}:{OTHER}",
            count=one.count,
        )
        for one in found
    ]


_Key = tuple[int, datetime, str, str]


def widened(counted: Iterable[Counted], now: datetime) -> dict[_Key, tuple[int, int, int]]:
    """Return counts of each width that is still kept, as (count, lowest id, highest id) by the Tally's key."""
    sums: dict[_Key, tuple[int, int, int]] = {}
    for one in counted:
        for width_s, kept in {**KEPT, ALWAYS: None}.items():
            began = began_at(one.minute, width_s)
            if kept is not None and began < now - kept:
                continue
            key = (width_s, began, one.measure, one.name[:_LONGEST_NAME])
            count, first, last = sums.get(key, (0, one.first_id, 0))
            sums[key] = (count + one.count, min(first, one.first_id), max(last, one.last_id))
    return sums


def began_at(moment: datetime, width_s: int) -> datetime:
    """Return when the stretch of this width that holds ``moment`` began."""
    if width_s == ALWAYS:
        return EPOCH
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % width_s, tz=UTC)


def _add(sums: dict[_Key, tuple[int, int, int]]) -> None:
    table = Tally._meta.db_table
    rows = [
        (width_s, sql_value(began), measure, name, *values)
        for (width_s, began, measure, name), values in sorted(sums.items())
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (width_s, began_at, measure, name, count, first_id, last_id)"  # noqa: S608  # our names
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (width_s, began_at, measure, name) DO UPDATE SET"
            f" count = {table}.count + excluded.count,"
            f" first_id = CASE WHEN excluded.first_id < {table}.first_id THEN excluded.first_id"
            f" ELSE {table}.first_id END,"
            f" last_id = CASE WHEN excluded.last_id > {table}.last_id THEN excluded.last_id"
            f" ELSE {table}.last_id END",
            rows,
        )


_SPENT_KEY = ("day", "project_id", "lane_id", "is_batch")
_SPENT_SUMS = ("answers", "unpriced", "input_tokens", "cached_tokens", "output_tokens",
               "reasoning_tokens", "cost_nano", "ordinary_nano")  # fmt: skip


def _add_spent(spent: Iterable[Spent]) -> None:
    table = Spend._meta.db_table
    names = (*_SPENT_KEY, *_SPENT_SUMS)
    rows: list[tuple[Any, ...]] = sorted(
        tuple(getattr(one, name) for name in names) for one in spent
    )
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in _SPENT_SUMS)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"  # noqa: S608  # our names
            f" ON CONFLICT ({', '.join(_SPENT_KEY)}) DO UPDATE SET {sums}",
            [(str(row[0]), *row[1:]) for row in rows],
        )


def prune(now: datetime) -> int:
    """Delete tallies whose time is over; return how many."""
    gone = 0
    for width_s, kept in KEPT.items():
        old = Tally.objects.filter(width_s=width_s, began_at__lt=now - kept - timedelta(hours=1))
        gone += old.delete()[0]
    return gone
