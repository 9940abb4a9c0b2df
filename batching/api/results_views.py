"""Results for clients that pull: every ended request of a project, in the order in which they ended.

The cursor is (when it was settled, row id). Time alone would lose results: a transaction that settles
requests now may commit after one that began later, and a client that read past it would never see its
results. So nothing is shown that is younger than the oldest transaction still open: on SQLite there is one
writer at a time and so no such thing; PostgreSQL tells when each of ours began. A result may wait a moment
for that, and is never skipped. A request that is retried ends again, and is shown again, later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone

from batching.api.auth import Caller
from batching.api.operations import NDJSON, Answer, Parameter, operation
from batching.api.paging import RowId, limit_of, read_cursor, whole_number, write_cursor
from batching.models import Answer as AnswerRow
from batching.models import Project, Request, RequestBody
from batching.models.projects import Scope
from delivery.envelope import render

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
MAX_WAIT_S: Final = 60
NEXT_CURSOR: Final = "X-Next-Cursor"
_LOOK_EVERY_S = 0.5
_GROUP_ROWS, _GROUP_BYTES = 250, 8 * 1024 * 1024
_MARGIN = timedelta(milliseconds=200)
"""For two transactions within one tick of the database's clock, and one that began but is not listed."""

Place = tuple[datetime, RowId]


@operation(
    scope=Scope.READ,
    query=(
        Parameter(
            name="cursor",
            about=f"Where to go on: the header `{NEXT_CURSOR}` of the answer before.",
        ),
        Parameter(
            name="wait",
            about="Seconds to wait for the first result when there is none yet (long poll).",
            schema={"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
        ),
        Parameter(
            name="limit",
            about="Results in one answer.",
            schema={
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LIMIT,
                "default": DEFAULT_LIMIT,
            },
        ),
    ),
    answers={200: Answer("One result a line, as it is delivered.", media_type=NDJSON)},
    fails=(400,),
)
def pull_results(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Pull results as NDJSON, oldest first.

    Each line is what a webhook would get. Take the answer's `X-Next-Cursor` for the next call once you
    have read it to its end: a result is never skipped, and is read again when you ask with an older
    cursor. With `wait`, an answer without lines comes after that many seconds; it comes at once, with
    `Retry-After`, when too many calls wait already.
    """
    after = read_cursor(request, Place)
    limit = limit_of(request, default=DEFAULT_LIMIT, most=MAX_LIMIT)
    wait_s = whole_number(request.GET, "wait", default=0, least=0, most=MAX_WAIT_S)
    headers = {}
    rows = _next(caller.project, after, limit)
    if not rows and wait_s:
        with _waiting_room() as has_room:
            if has_room:
                rows = _await(caller.project, after, limit, wait_s)
            else:
                headers["Retry-After"] = "5"
    place = (rows[-1].settled_at, rows[-1].pk) if rows else after
    if place is not None:
        headers[NEXT_CURSOR] = write_cursor(place)
    return StreamingHttpResponse(_lines(rows), content_type=NDJSON, headers=headers)


def _next(project: Project, after: Place | None, limit: int) -> list[Request]:
    """Return the ended requests behind a place, without their bytes."""
    rows = Request.objects.filter(project=project, settled_at__isnull=False)
    rows = rows.filter(settled_at__lt=_horizon(timezone.now()))
    if after is not None:
        at, pk = after
        rows = rows.filter(Q(settled_at__gt=at) | Q(settled_at=at, pk__gt=pk), settled_at__gte=at)
    return list(rows.order_by("settled_at", "pk")[:limit])


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


_waiters = threading.BoundedSemaphore(max(1, settings.BATCHER_WEB_THREADS // 4))
"""Calls that may sleep in this process: most threads stay free for those that don't."""


@contextmanager
def _waiting_room() -> Iterator[bool]:
    """Give a place to sleep in, or say that there is none."""
    has_room = _waiters.acquire(blocking=False)
    try:
        yield has_room
    finally:
        if has_room:
            _waiters.release()


def _await(project: Project, after: Place | None, limit: int, wait_s: int) -> list[Request]:
    """Look again and again until there is a result or the time is up."""
    until = time.monotonic() + wait_s
    while (left_s := until - time.monotonic()) > 0:
        time.sleep(min(_LOOK_EVERY_S, left_s))
        if rows := _next(project, after, limit):
            return rows
    return []


def _lines(rows: list[Request]) -> Iterator[bytes]:
    """Yield each result's line; of the answers, no more than a few megabytes are in memory."""
    for group in _groups(rows):
        answers = {a.request_id: a for a in _answers_to(group)}
        bodies = RequestBody.objects.filter(request__in=group)
        metadata = dict(bodies.values_list("request_id", "metadata"))
        for row in group:
            line = render(row, answers.get(row.pk), bytes(metadata.get(row.pk, b"{}")))
            yield line.replace(b"\n", b" ") + b"\n"  # between tokens only: JSON has no other


def _answers_to(rows: list[Request]) -> QuerySet[AnswerRow]:
    return AnswerRow.objects.filter(request__in=rows, attempt=F("request__attempt"))


def _groups(rows: list[Request]) -> Iterator[list[Request]]:
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
