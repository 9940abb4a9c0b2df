"""How a destination stands: what waits there, what was given up, and how its last tries ended.

Shown by the API and the admin; decides nothing. Every figure comes by an index and reads a bounded number of
rows, so a page may ask at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import QuerySet

from batching.models import Destination, Request
from delivery import health
from delivery.health import Health

MOST_COUNTED: Final = 10_000
MOST_GROUPED: Final = 200_000
"""Dead letters that the groups of all destinations count."""
TREND: Final = timedelta(hours=1)
_NOW_DOES_NOT_MATTER: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why results were given up: how their last tries ended."""

    outcome: str
    """Empty: not known, for their attempts were not kept."""
    status: int | None
    """HTTP status, when there was one."""
    count: int

    def __str__(self) -> str:
        """Say it in words: ``http status 503``, ``timeout``."""
        words = (self.outcome or "cause not known").replace("_", " ")
        return words if self.status is None else f"{words} {self.status}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dead letters of one destination that were given up for one cause."""

    destination_id: int
    cause: Cause
    lately: int
    """Given up within the last hour."""
    before: int
    """Given up within the hour before that."""
    oldest_at: datetime
    newest_at: datetime


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The figures of one destination."""

    waiting: int
    """Results that are to be sent here, now or later; counted up to MOST_COUNTED."""
    oldest_due_at: datetime | None
    given_up: int
    """Results whose delivery was given up here and waits for a person; counted up to MOST_GROUPED."""
    causes: Sequence[Cause]
    """Of what was given up, the most frequent first; together they are ``given_up``."""
    health: Health
    """What its tries tell."""


def of(destination: Destination, *, now: datetime) -> Standing:
    """Return how a destination stands now."""
    mine = Request.objects.filter(destination=destination).order_by()
    due = mine.filter(due_at__isnull=False)
    why = causes(destination)
    return Standing(
        waiting=due[:MOST_COUNTED].count(),
        oldest_due_at=due.order_by("due_at").values_list("due_at", flat=True).first(),
        given_up=sum(cause.count for cause in why),
        causes=why,
        health=health.of(destination, now=now),
    )


def dead_letters() -> QuerySet[Request]:
    """Return everything that was given up and waits for a person, in the order of its index."""
    return Request.objects.given_up().order_by("destination_id", "dead_cause", "dead_at")


def causes(destination: Destination | None = None) -> list[Cause]:
    """Say why dead letters were given up, the most frequent cause first; of one destination, or of all."""
    counts = Counter[str | None]()
    for row in _grouped(_NOW_DOES_NOT_MATTER, destination):
        counts[row[1]] += row[2]
    found = [cause_of(stored, count) for stored, count in counts.items()]
    return sorted(found, key=lambda cause: (-cause.count, cause.outcome))


def cause_of(stored: str | None, count: int) -> Cause:
    """Return what a request's ``dead_cause`` says."""
    outcome, _, status = (stored or "").partition(":")
    return Cause(outcome=outcome, status=int(status) if status.isdecimal() else None, count=count)


def stored_cause(outcome: str, status: int | None) -> str | None:
    """Return a cause as a request's ``dead_cause`` holds it."""
    return (outcome if status is None else f"{outcome}:{status}") or None


def given_up_so(outcome: str, status: int | None) -> QuerySet[Request]:
    """Return the dead letters whose last try ended so: the rows of one Cause."""
    return dead_letters().filter(dead_cause=stored_cause(outcome, status))


_GROUPS: Final = """
    SELECT destination_id, dead_cause, COUNT(*),
        SUM(CASE WHEN dead_at > %s THEN 1 ELSE 0 END),
        SUM(CASE WHEN dead_at > %s AND dead_at <= %s THEN 1 ELSE 0 END), MIN(dead_at), MAX(dead_at)
    FROM (
        SELECT destination_id, dead_cause, dead_at FROM {request}
        WHERE dead_at IS NOT NULL AND discarded_at IS NULL {which}
        ORDER BY destination_id, dead_cause, dead_at LIMIT %s
    ) AS dead GROUP BY destination_id, dead_cause
"""


def groups(now: datetime) -> list[Group]:
    """Group the first MOST_GROUPED dead letters by destination and cause, the biggest group first; one query.

    All of it stands in one index, which is read once.
    """
    found = [
        Group(
            destination_id=destination,
            cause=cause_of(cause, count),
            lately=recent,
            before=earlier,
            oldest_at=_moment(oldest),
            newest_at=_moment(newest),
        )
        for destination, cause, count, recent, earlier, oldest, newest in _grouped(now)
    ]
    return sorted(found, key=lambda group: (-group.cause.count, group.destination_id))


def _grouped(now: datetime, destination: Destination | None = None) -> list[tuple[Any, ...]]:
    """Return rows of destination, cause, count, lately, before, oldest, newest."""
    adapt = connection.ops.adapt_datetimefield_value
    lately, before = adapt(now - TREND), adapt(now - 2 * TREND)
    which = "AND destination_id = %s" if destination else ""
    sql = _GROUPS.format(request=Request._meta.db_table, which=which)
    named = [destination.pk] if destination else []
    with connection.cursor() as cursor:
        cursor.execute(sql, [lately, before, lately, *named, MOST_GROUPED])
        return list(cursor.fetchall())


def _moment(value: object) -> datetime:
    """Return a time as the database's driver gives it; SQLite gives text in UTC."""
    if isinstance(value, datetime):
        return value
    return datetime.fromisoformat(f"{value}+00:00")
