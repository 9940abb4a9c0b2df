"""Dead letters: what was given up, grouped by destination and cause, and the way back for a group or for one.

Nothing here is emptied by itself. A group leads to its samples, to what may be mended, and then to a replay (all of
it is sent again, in the background) or to a run that discards it. The figures stand in one index; no list is scanned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from batching.admin import shown
from batching.admin.replay_orders import ORDER
from batching.admin.request_filters import given_up_because
from batching.admin.rows import MOST_COUNTED, count_up_to
from batching.models import Destination, Request
from delivery import health, standing
from delivery.models import Attempt, Replay
from delivery.outcome import Code
from delivery.standing import MOST_GROUPED, Cause, Group

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest

SEE: Final = "batching.view_request"
GROUPS_SHOWN: Final = 100
SAMPLES: Final = 5
_RUNNING_SHOWN: Final = 5
_CUT_AT: Final = 200
_CLIENT_ERRORS: Final = range(400, 500)

_ADVICE: Final = {
    Code.TIMEOUT: "It answered too late. Let it answer first and work afterwards, or give its destination a longer timeout.",
    Code.BLOCKED_ADDRESS: "Its address may not be sent to. Correct it, or open it (BATCHER_ALLOW_PRIVATE_DESTINATIONS).",
    Code.INVALID_DESTINATION: "Its address can't be used as it is. Correct it.",
    Code.GONE: "The receiver said that it wants nothing more, so its destination was disabled. Ask who runs it, then enable it.",
    Code.PAYLOAD_MISSING: "There is nothing left to send. Discard it, or send the request to the provider again.",
    Code.RABBITMQ_NOT_CONFIGURED: "No broker is set. Set RABBITMQ_URL and start again.",
    Code.INTERNAL_ERROR: "It was a fault of ours: look at the log of that time.",
}
_REFUSED: Final = (
    "The receiver refuses what it gets. Look at what it said below, mend it there, then retry."
)
_FAILED: Final = "The receiver was failing. See that it is well (“Ping”), then retry."
_UNKNOWN: Final = (
    "The attempts of these were not kept. Ping the destination, then retry one of them and see."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One group as the page shows it."""

    group: Group
    place: Destination
    url: str

    @property
    def trend(self) -> str:
        """What the last two hours say: ``rising``, ``falling`` or ``quiet``."""
        if not self.group.lately:
            return "quiet"
        return "rising" if self.group.lately > self.group.before else "falling"


def dead_letters_page(request: HttpRequest) -> TemplateResponse:
    """Show all groups, or the one that the address names. Raises PermissionDenied and Http404."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    context = {
        **admin.site.each_context(request),
        "title": "Dead letters",
        "may_order": request.user.has_perm(ORDER),
        "may_change": request.user.has_perm("batching.change_destination"),
        "may_operate": request.user.has_perm("batching.operate_destination"),
        "as_of": timezone.now(),
        "discarded_url": shown.list_of("batching.request", due="discarded"),
    }
    if key := request.GET.get("destination", ""):
        context |= _opened(key, request.GET.get("cause", ""))
        return TemplateResponse(request, "batcher/admin/dead_letter_group.html", context)
    return TemplateResponse(
        request, "batcher/admin/dead_letters.html", context | _all(timezone.now())
    )


def group_url(place: Destination, cause: Cause) -> str:
    """Return the address of one group."""
    named = {"destination": place.key, "cause": given_up_because(cause)}
    return f"{reverse('dead_letters')}?{urlencode(named)}"


def _all(now: datetime) -> dict[str, Any]:
    found = standing.groups(now)
    places = Destination.objects.defer("secret", "previous_secret", "headers").in_bulk(
        {group.destination_id for group in found[:GROUPS_SHOWN]}
    )
    lines = [
        Line(group=group, place=place, url=group_url(place, group.cause))
        for group in found[:GROUPS_SHOWN]
        if (place := places.get(group.destination_id)) is not None
    ]
    total = sum(group.cause.count for group in found)
    return {
        "lines": lines,
        "total": shown.number(total) + ("+" if total >= MOST_GROUPED else ""),
        "lately": sum(group.lately for group in found),
        "more": max(0, len(found) - GROUPS_SHOWN),
        "running": _running(),
        "discarded": _capped(count_up_to(_discarded(), MOST_COUNTED + 1)),
        "retry_url": f"{reverse('admin:batching_request_replay')}?due=never",
        "discard_url": _discard_url(due="never"),
    }


def _opened(key: str, because: str) -> dict[str, Any]:
    place = Destination.objects.filter(key=key).first() if "\0" not in key + because else None
    if place is None:
        raise Http404("no such destination")
    cause = standing.cause_of("" if because == "unknown" else because, 0)
    rows = Request.objects.given_up().filter(
        destination=place, dead_cause=standing.stored_cause(cause.outcome, cause.status)
    )
    count = count_up_to(rows, MOST_COUNTED + 1)
    listed = {"given_up_at": place.key, "given_up_because": given_up_because(cause)}
    return {
        "place": place,
        "place_url": shown.page_of(place),
        "cause": cause,
        "count": _capped(count),
        "is_empty": not count,
        "advice": _advice(cause),
        "health": health.of(place, now=timezone.now()),
        "samples": _samples(rows.order_by("-dead_at")[:SAMPLES]),
        "list_url": shown.list_of("batching.request", **listed),
        "retry_url": f"{reverse('admin:batching_request_replay')}?{urlencode(listed)}",
        "discard_url": _discard_url(**listed),
        "running": _running(),
    }


def _samples(rows: QuerySet[Request]) -> list[tuple[Request, str, Attempt | None, str]]:
    """Return each request with its page, its last attempt and what the receiver said."""
    last = {
        attempt.request_id: attempt
        for attempt in Attempt.objects.filter(request__in=[row.pk for row in rows]).order_by("pk")
    }
    return [
        (row, shown.page_of(row), attempt, shown.cut(attempt.answer, _CUT_AT) if attempt else "")
        for row in rows
        for attempt in [last.get(row.pk)]
    ]


def _advice(cause: Cause) -> str:
    if not cause.outcome:
        return _UNKNOWN
    if cause.status in _CLIENT_ERRORS and cause.outcome == Code.HTTP_STATUS:
        return _REFUSED
    return _ADVICE.get(Code(cause.outcome), _FAILED) if cause.outcome in set(Code) else _FAILED


def _discard_url(**listed: str) -> str:
    page = reverse("admin:batching_request_run", args=["discard"])
    return f"{page}?{urlencode(listed)}"


def _running() -> list[tuple[Replay, str]]:
    """Return the replays that are under way, with their pages."""
    rows = Replay.objects.filter(state=Replay.State.RUNNING).order_by("-pk")[:_RUNNING_SHOWN]
    return [(row, shown.page_of(row)) for row in rows]


def _discarded() -> Any:
    return Request.objects.filter(discarded_at__isnull=False)


def _capped(count: int) -> str:
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"
