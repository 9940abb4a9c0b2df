"""How a chunk of the attempts is counted: how they ended, and how long their results took from intake.

Called by the clock; ``batching.tallying`` keeps the bookmark and adds the counts up.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection

from batching.models import Request
from batching.tally_sources import as_moment, minute_of, rows_of
from batching.tallying import TRIED, TURNAROUND, Counted, Found, Source, turnaround_bounds_s
from delivery.models import Attempt

DELIVERED: Final = "delivered"


def _read(after: int, upto: int) -> Found:
    """Count attempts by outcome; of first deliveries, also by the time since intake."""
    minute, attempt = minute_of("a.ended_at"), Attempt._meta.db_table
    where = "a.id > %s AND a.id <= %s"
    tries = rows_of(
        f"SELECT {minute}, a.outcome, CASE WHEN a.outcome = 'http_status' THEN a.status END,"  # noqa: S608  # our names
        f" COUNT(*), MIN(a.id), MAX(a.id) FROM {attempt} a WHERE {where} GROUP BY 1, 2, 3",
        [after, upto],
    )
    spans = rows_of(
        f"SELECT {minute}, {_bucket()}, COUNT(*) FROM {attempt} a"  # noqa: S608  # our names
        f" JOIN {Request._meta.db_table} r ON r.id = a.request_id WHERE {where}"
        " AND a.outcome = 'delivered' AND NOT a.is_replay GROUP BY 1, 2",
        [after, upto],
    )
    buckets = [
        Counted(minute=as_moment(at), measure=TURNAROUND, name=f"{bucket:02}", count=count)
        for at, bucket, count in spans
    ]
    return Found(counted=[*map(_tried, tries), *buckets])


def _tried(row: tuple[Any, ...]) -> Counted:
    at, outcome, status, count, first, last = row
    name = outcome if status is None else f"{outcome}:{status}"
    return Counted(
        minute=as_moment(at), measure=TRIED, name=name, count=count, first_id=first, last_id=last
    )


def _bucket() -> str:
    """Return SQL for the number of the bucket of a delivery's time since intake."""
    span = "(julianday(a.ended_at) - julianday(r.created_at)) * 86400.0"
    if connection.vendor == "postgresql":
        span = "EXTRACT(EPOCH FROM (a.ended_at - r.created_at))"
    bounds = turnaround_bounds_s()
    cases = " ".join(f"WHEN {span} <= {bound} THEN {n}" for n, bound in enumerate(bounds))
    return f"CASE {cases} ELSE {len(bounds)} END"


ATTEMPTS = Source(name="attempts", model=Attempt, read=_read)
