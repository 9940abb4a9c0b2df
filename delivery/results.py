"""Ended requests as results, in the order in which they were settled, and their lines.

The order is (when it was settled, row id). Time alone would lose results: a transaction that settles
requests now may commit after one that began later, and a client that read past it would never see its
results. So nothing is shown that is younger than the oldest transaction still open: on SQLite there is one
writer at a time and so no such thing; PostgreSQL tells when each of ours began. A result may wait a moment
for that, and is never skipped. A request that is retried ends again, and is shown again, later.
Called by whatever hands results to clients that pull (the API's views, `leases`). Marks nothing as read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Length

from batching.models import Answer, Project, Request, RequestBody
from delivery.envelope import render

_MOST_NEWS = 1_000
_GROUP_ROWS, _GROUP_BYTES = 250, 8 * 1024 * 1024
_MARGIN = timedelta(milliseconds=200)
"""For two transactions within one tick of the database's clock, and one that began but is not listed."""

Place = tuple[datetime, int]


def settled_after(project: Project, after: Place | None, *, now: datetime) -> QuerySet[Request]:
    """Return the ended requests behind a place, oldest first, as far as they can be told for sure."""
    rows = Request.objects.filter(project=project, settled_at__isnull=False)
    rows = rows.filter(settled_at__lt=_horizon(now))
    if after is not None:
        rows = rows.filter(_behind(after))
    return rows.order_by("settled_at", "pk")


def _behind(place: Place) -> Q:
    at, pk = place
    return Q(Q(settled_at__gt=at) | Q(settled_at=at, pk__gt=pk), settled_at__gte=at)


def passed(
    places: Collection[tuple[int, Place | None]], *, now: datetime
) -> list[tuple[int, Place | None]]:
    """Return those of the places, each with its project's id, behind which there is a result by now.

    One question for all of them. When very much has come, some are told at the next look only.
    """
    news = Q()
    for project_id, after in places:
        news |= Q(_behind(after) if after else Q(), project_id=project_id)
    rows = Request.objects.filter(news, settled_at__isnull=False, settled_at__lt=_horizon(now))
    found = rows.order_by().values_list("project_id", "settled_at", "pk")[:_MOST_NEWS]
    latest: dict[int, Place] = {}
    for project_id, at, pk in found:
        if at is not None:
            latest[project_id] = max((at, pk), latest.get(project_id, (at, pk)))
    return [
        (project_id, after)
        for project_id, after in places
        if project_id in latest and (after is None or latest[project_id] > after)
    ]


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


def whole(row: Request) -> bytes | None:
    """Return what is delivered for one ended request, exactly; None when its answer is not kept any more."""
    answer = _answers_to([row]).first()
    if answer is None and row.outcome == "succeeded":
        return None
    metadata = RequestBody.objects.filter(request=row).values_list("metadata", flat=True).first()
    return render(row, answer, bytes(metadata or b"{}"))


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
