"""Results for clients that pull: every ended request of a project, in the order in which they ended.

The cursor is a place in that order (`delivery.results` says why nothing is skipped). A call may wait for
the first result; `waiting` bounds how many may wait at once.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime
from typing import Final

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone

from batching.api import waiting
from batching.api.auth import Caller
from batching.api.operations import NDJSON, Answer, Link, Parameter, operation
from batching.api.paging import RowId, limit_of, read_cursor, whole_number, write_cursor
from batching.models import Project, Request
from batching.models.projects import Scope
from delivery import results
from delivery.envelope import Envelope

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
MAX_WAIT_S: Final = 60
NEXT_CURSOR: Final = "X-Next-Cursor"

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
    answers={
        200: Answer(
            "One result a line, as it is delivered.",
            Envelope,
            media_type=NDJSON,
            headers={
                NEXT_CURSOR: "Where to go on; absent while there is no result at all.",
                "Retry-After": "Seconds; too many calls wait already, so this one did not.",
            },
            links=(Link(to="pull_results", values={"cursor": f"$response.header.{NEXT_CURSOR}"}),),
        )
    },
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
        with waiting.seat(caller.key.pk) as seat:
            if seat.is_given:
                rows = _await(caller.project, after, limit, wait_s)
            else:
                headers["Retry-After"] = f"{waiting.RETRY_AFTER_S}"
    place = results.place_of(rows[-1]) if rows else after
    if place is not None:
        headers[NEXT_CURSOR] = write_cursor(place)
    found = (line + b"\n" for _, line in results.lines(rows))
    return StreamingHttpResponse(found, content_type=NDJSON, headers=headers)


def _next(project: Project, after: Place | None, limit: int) -> list[Request]:
    """Return the ended requests behind a place, without their bytes."""
    return list(results.settled_after(project, after, now=timezone.now())[:limit])


def _passed(places: Collection[tuple[int, Place | None]]) -> Collection[tuple[int, Place | None]]:
    return results.passed(places, now=timezone.now())


_news = waiting.Watch(_passed)


def _await(project: Project, after: Place | None, limit: int, wait_s: int) -> list[Request]:
    """Return the first results behind a place as soon as there is one, none when the time is up."""
    until = time.monotonic() + wait_s
    while (left_s := until - time.monotonic()) > 0:
        if _news.wait((project.pk, after), left_s) and (rows := _next(project, after, limit)):
            return rows
    return []
