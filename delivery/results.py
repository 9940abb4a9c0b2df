"""Ended requests as results, in the order in which they were settled, and their lines.

The order is (when it was settled, row id). Time alone would lose results: a transaction that settles
requests now may commit after one that began later, and a client that read past it would never see its
results. So nothing is shown that is younger than the oldest transaction still open: on SQLite there is one
writer at a time and so no such thing; PostgreSQL tells when each of ours began. A result may wait a moment
for that, and is never skipped. A request that is retried ends again, and is shown again, later.
Called by whatever hands results to clients that pull (the API's views, `leases`). Marks nothing as read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Length

from batching.models import Answer, Project, Request, RequestBody
from delivery.envelope import render

_GROUP_ROWS, _GROUP_BYTES = 250, 8 * 1024 * 1024
_MARGIN = timedelta(milliseconds=200)
"""For two transactions within one tick of the database's clock, and one that began but is not listed."""

Place = tuple[datetime, int]


def settled_after(project: Project, after: Place | None, *, now: datetime) -> QuerySet[Request]:
    """Return the ended requests behind a place, oldest first, as far as they can be told for sure."""
    rows = Request.objects.filter(project=project, settled_at__isnull=False)
    rows = rows.filter(settled_at__lt=_horizon(now))
    if after is not None:
        at, pk = after
        rows = rows.filter(Q(settled_at__gt=at) | Q(settled_at=at, pk__gt=pk), settled_at__gte=at)
    return rows.order_by("settled_at", "pk")


def place_of(row: Request) -> Place:
    """Return where an ended request stands."""
    if row.settled_at is None:
        raise ValueError(f"{row.key} has no end yet")
    return row.settled_at, row.pk


def _horizon(now: datetime) -> datetime:
    """Return the moment before which no open transaction can still settle anything."""
    if connection.vendor != "postgresql":
        return now - _MARGIN
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT least(min(xact_start), statement_timestamp()) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name = current_setting('application_name')"
        )
        oldest: datetime = cursor.fetchone()[0]
    return min(oldest, now) - _MARGIN


def lines(rows: Sequence[Request]) -> Iterator[tuple[Request, bytes]]:
    """Yield each ended request with what is delivered for it, on one line without its end.

    Of the answers, no more than a few megabytes are in memory.
    """
    for group in _groups(rows):
        answers = {a.request_id: a for a in _answers_to(group)}
        bodies = RequestBody.objects.filter(request__in=group)
        metadata = dict(bodies.values_list("request_id", "metadata"))
        for row in group:
            line = render(row, answers.get(row.pk), bytes(metadata.get(row.pk, b"{}")))
            yield row, line.replace(b"\n", b" ")  # between tokens only: JSON has no other


def _answers_to(rows: Sequence[Request]) -> QuerySet[Answer]:
    return Answer.objects.filter(request__in=rows, attempt=F("request__attempt"))


def _groups(rows: Sequence[Request]) -> Iterator[list[Request]]:
    """Cut the page where the answers so far are big enough to be sent."""
    sizes = dict(_answers_to(rows).values_list("request_id", Length("line"))) if rows else {}
    group: list[Request] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sizes.get(row.pk, 0)
        if size >= _GROUP_BYTES or len(group) >= _GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group
