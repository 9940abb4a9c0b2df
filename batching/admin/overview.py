"""The admin's first page: what needs a person, how much there is of everything, and how to begin.

The theme calls ``overview``; ``concerns`` decides what needs attention. Every figure opens the list that it counts,
and is counted along an index, up to a cap. An open page asks for its figures again every few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Max
from django.urls import reverse
from django.utils import timezone

from batching.admin import shown
from batching.admin.concerns import CLOCK_IS_LATE_AFTER, capped, concerns
from batching.admin.rows import MOST_COUNTED, count_up_to
from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Pulse, Request
from batching.templatetags.badges import BAD, WARNING
from delivery import standing

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure that opens its list."""

    title: str
    figure: str
    url: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class StateCount:
    """How many rows stand at a state."""

    state: str
    figure: str
    url: str


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the first page's context, for those who may see batches and requests."""
    user = request.user
    if not (user.has_perm("batching.view_batch") and user.has_perm("batching.view_request")):
        return {**context, "title": "Overview", "may_look": False}
    now = timezone.now()
    requests = _requests_by_state()
    batches = _batches_by_state()
    return {
        **context,
        "title": "Overview",
        "may_look": True,
        "as_of": now,
        "is_empty": not requests,
        "concerns": concerns(now, is_new=not requests),
        "tiles": _tiles(requests, now),
        "requests_by_state": _linked("batching.request", RequestState, requests),
        "batches_by_state": _linked("batching.batch", BatchState, batches),
        "site": request.build_absolute_uri("/").rstrip("/"),
        "keys_url": reverse("admin:batching_apikey_changelist"),
        "may_issue_keys": user.has_perm("batching.add_apikey"),
    }


def _requests_by_state() -> dict[str, int]:
    """Count requests, state by state, each up to one past the cap."""
    counts = {
        str(state): count_up_to(Request.objects.filter(state=state), MOST_COUNTED + 1)
        for state in RequestState
    }
    return {state: count for state, count in counts.items() if count}


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


def _tiles(requests: dict[str, int], now: datetime) -> list[Tile]:
    """Return the figures that an operator asks for first."""
    open_states = (RequestState.PENDING, RequestState.PROCESSING)
    dead = count_up_to(standing.dead_letters(), MOST_COUNTED + 1)
    due = count_up_to(Request.objects.filter(due_at__lte=now), MOST_COUNTED + 1)
    pulse = Pulse.objects.aggregate(last=Max("began_at"))["last"]
    is_late = pulse is None or now - pulse > CLOCK_IS_LATE_AFTER
    pages = "batching.request"
    waiting, running = (requests.get(state, 0) for state in open_states)
    return [
        Tile(
            title="Waiting to be sent",
            figure=capped(waiting),
            url=shown.list_of(pages, state__exact="pending"),
        ),
        Tile(
            title="At the provider",
            figure=capped(running),
            url=shown.list_of(pages, state__exact="processing"),
        ),
        Tile(
            title="Due for delivery",
            figure=capped(due),
            url=shown.list_of(pages, due="now"),
            note="to be sent now",
        ),
        Tile(
            title="Dead letters",
            figure=capped(dead),
            url=shown.list_of(pages, due="never"),
            note="delivery was given up",
            tone=BAD if dead else "",
        ),
        Tile(
            title="Clock",
            figure=f"{shown.duration(now - pulse)} ago" if pulse else "never",
            url=reverse("admin:django_celery_beat_periodictask_changelist"),
            note="last tick",
            tone=WARNING if is_late else "",
        ),
    ]
