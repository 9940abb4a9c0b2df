"""The admin's first page: what needs a person, how much there is of everything, and how to begin.

The theme calls ``overview``; ``concerns`` decides what needs attention, ``tiles`` and ``charts`` what is shown.
Every figure opens the list that it counts. An open page asks for its figures again every few seconds; the charts
ask for theirs by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import Count
from django.urls import reverse
from django.utils import timezone

from batching.admin import charts, sandbox_page, shown
from batching.admin.concerns import capped, concerns
from batching.admin.rows import MOST_COUNTED
from batching.admin.tiles import tiles
from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Request

if TYPE_CHECKING:
    from django.http import HttpRequest


@dataclass(frozen=True, kw_only=True)
class StateCount:
    """How many rows stand at a state."""

    state: str
    figure: str
    url: str


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the first page's context, for those who may see batches and requests."""
    user = request.user
    if not user.has_perms(charts.PERMISSIONS):
        return {**context, "title": "Overview", "may_look": False}
    now = timezone.now()
    requests = _requests_by_state()
    batches = _batches_by_state()
    with_charts = bool(requests) and not getattr(request, "htmx", False)
    return {
        **context,
        **(charts.context_of(request, now) if with_charts else {}),
        "title": "Overview",
        "may_look": True,
        "as_of": now,
        "is_empty": not requests,
        "has_sandbox": not requests and sandbox_page.is_offered(request),
        "concerns": concerns(now, is_new=not requests),
        "tiles": tiles(requests, now),
        "requests_by_state": _linked("batching.request", RequestState, requests),
        "batches_by_state": _linked("batching.batch", BatchState, batches),
        "site": request.build_absolute_uri("/").rstrip("/"),
        "keys_url": reverse("admin:batching_apikey_changelist"),
        "may_issue_keys": user.has_perm("batching.add_apikey"),
    }


def _requests_by_state() -> dict[str, int]:
    """Count requests, state by state, each up to one past the cap. One query."""
    one = f"(SELECT COUNT(*) FROM (SELECT 1 FROM {Request._meta.db_table} WHERE state = %s LIMIT {MOST_COUNTED + 1}) s)"  # noqa: S608  # our names
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join([one] * len(RequestState))}", RequestState.values)
        counts = zip(RequestState.values, cursor.fetchone(), strict=True)
    return {state: count for state, count in counts if count}


def _batches_by_state() -> dict[str, int]:
    """Count batches, of which there are thousands where there are millions of requests."""
    rows = Batch.objects.order_by().values_list("state")
    return dict(rows.annotate(count=Count("pk")))


def _linked(label: str, states: Any, counts: dict[str, int]) -> list[StateCount]:
    return [
        StateCount(
            state=str(state),
            figure=capped(counts[state]),
            url=shown.list_of(label, state__exact=str(state)),
        )
        for state in states
        if counts.get(state)
    ]
