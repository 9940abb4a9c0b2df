"""The overview's tiles: the figures that an operator asks for first, each a link to what it counts.

Every figure comes along an index, up to a cap, or from the tallies. ``overview`` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

from django.db.models import Min, Sum
from django.urls import reverse

from batching.admin import shown
from batching.admin.concerns import capped
from batching.admin.rows import MOST_COUNTED, count_up_to
from batching.lifecycle import RequestState
from batching.models import Request, Spend, Tally
from batching.tallying import ACCEPTED, MOVED, TRIED, began_at
from batching.templatetags.badges import BAD
from delivery import standing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_REQUESTS: Final = "batching.request"
_RATE_OF: Final = timedelta(minutes=5)
_UNDELIVERED: Final = (RequestState.PENDING, RequestState.PROCESSING, RequestState.DELIVERING)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure that opens its list."""

    title: str
    figure: str
    url: str
    note: str = ""
    tone: str = ""


def tiles(requests: dict[str, int], now: datetime) -> list[Tile]:
    """Return the tiles; ``requests`` are the capped counts by state."""
    return [*_rates(now), *_open(requests), *_delivery(now), _spent(now)]


def _rates(now: datetime) -> Iterator[Tile]:
    """Yield what came and went, a minute, in the five minutes before the running one. One query."""
    until = began_at(now, 60)
    since = until - _RATE_OF
    rows = Tally.objects.filter(width_s=60, began_at__gte=since, began_at__lt=until)
    wanted = rows.filter(measure__in=(MOVED, TRIED), name__in=(ACCEPTED, "delivered"))
    sums = dict(wanted.order_by().values_list("name").annotate(sum=Sum("count")))
    note = f"mean of {_RATE_OF.seconds // 60} minutes"
    begin, end = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (since, until))
    yield Tile(
        title="Accepted / min",
        figure=_a_minute(sums.get(ACCEPTED, 0)),
        url=shown.list_of(_REQUESTS, **{"from": begin, "to": end}),
        note=note,
    )
    yield Tile(
        title="Delivered / min",
        figure=_a_minute(sums.get("delivered", 0)),
        url=shown.list_of(_REQUESTS, delivered=f"{begin}..{end}"),
        note=note,
    )


def _a_minute(count: int) -> str:
    rate = count * 60 / _RATE_OF.total_seconds()
    return f"{rate:,.0f}" if rate >= 10 or rate == int(rate) else f"{rate:.1f}"


def _open(requests: dict[str, int]) -> Iterator[Tile]:
    words = {RequestState.PENDING: "Waiting", RequestState.PROCESSING: "At the provider"}
    notes = {RequestState.PENDING: "to be sent", RequestState.PROCESSING: "to be answered"}
    for state, title in words.items():
        url = shown.list_of(_REQUESTS, state__exact=str(state))
        yield Tile(title=title, figure=capped(requests.get(state, 0)), url=url, note=notes[state])


def _delivery(now: datetime) -> Iterator[Tile]:
    due = count_up_to(Request.objects.filter(due_at__lte=now), MOST_COUNTED + 1)
    yield Tile(
        title="Due for delivery",
        figure=capped(due),
        url=shown.list_of(_REQUESTS, due="now"),
        note="to be sent now",
    )
    if oldest := _oldest_undelivered():
        yield Tile(
            title="Oldest undelivered",
            figure=shown.duration(now - oldest.created_at),
            url=shown.page_of(oldest),
            note=oldest.state.replace("_", " "),
        )
    else:
        nothing = shown.list_of(_REQUESTS, state__exact=str(RequestState.PENDING))
        yield Tile(title="Oldest undelivered", figure="none", url=nothing, note="nothing is open")
    dead = count_up_to(standing.dead_letters(), MOST_COUNTED + 1)
    yield Tile(
        title="Dead letters",
        figure=capped(dead),
        url=shown.list_of(_REQUESTS, due="never"),
        note="delivery was given up",
        tone=BAD if dead else "",
    )


def _oldest_undelivered() -> Request | None:
    """Return what has been open for longest, of each state the first row, and of what is due. Five queries."""
    firsts = [Request.objects.filter(state=state).order_by("pk").first() for state in _UNDELIVERED]
    due = Request.objects.filter(due_at__isnull=False).order_by()[:MOST_COUNTED]
    first_due = due.aggregate(first=Min("pk"))["first"]  # ids rise with time; each row is read once
    firsts.append(Request.objects.filter(pk=first_due).first() if first_due else None)
    found = [row for row in firsts if row is not None]
    return min(found, key=lambda row: row.created_at, default=None)


def _spent(now: datetime) -> Tile:
    """Return what today (UTC) has cost. One query."""
    today = now.astimezone(UTC).date()
    sums = Spend.objects.filter(day=today).aggregate(
        cost=Sum("cost_nano"), ordinary=Sum("ordinary_nano"), unpriced=Sum("unpriced")
    )
    cost, saved = sums["cost"] or 0, (sums["ordinary"] or 0) - (sums["cost"] or 0)
    note = f"{shown.about_money(saved)} saved" if saved else "UTC"
    if sums["unpriced"]:
        note += f"; {sums['unpriced']:,} answers have no known price"
    return Tile(
        title="Spent today", figure=shown.about_money(cost), url=reverse("costs"), note=note
    )
