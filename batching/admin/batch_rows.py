"""What a list's row says of a batch: its cells, and the few questions behind a whole page of them.

``figures_of`` asks once for all rows of a page: places in their lanes, what is usual there, whose requests they hold.
Each cell that moves has a name on the page, so that the list's own renewal (``batch_live``) can write it anew where it
stands, and nothing jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db.models import OuterRef, Subquery
from django.utils.html import format_html

from batching import order, turnaround
from batching.admin import shown
from batching.lifecycle import BatchState
from batching.models import Batch, Request
from batching.models.batches import IN_LINE, PROVIDER_HOLDS
from batching.templatetags import times
from batching.templatetags.badges import state_badge
from delivery import why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from django.utils.safestring import SafeString

_PLAIN: Final = '<div id="batch-{}-{}">{}</div>'
_SWAPPED: Final = '<div id="batch-{}-{}" hx-swap-oob="true">{}</div>'
_SOON: Final = timedelta(hours=2)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a row needs beside the batch itself."""

    place: order.Place | None
    """None: it is not in line."""
    usual: turnaround.Expected
    done_at: datetime | None
    """When the provider may be done with it: a guess; None: nobody can say."""
    projects: tuple[str, ...]
    """Of the first and the last of its requests by state."""


def figures_of(batches: Sequence[Batch], now: datetime) -> dict[int, Figures]:
    """Return the figures of some batches, by number, in three queries. Reads their lanes."""
    places = order.places_of(batches)
    usual = turnaround.expected_of({batch.lane_id for batch in batches}) if batches else {}
    projects = _projects_of(batches)
    return {
        batch.pk: Figures(
            place=places.get(batch.pk),
            usual=(expected := usual.get(batch.lane_id, turnaround.GUESS)),
            done_at=_done_at(batch, expected, now),
            projects=projects.get(batch.pk, ()),
        )
        for batch in batches
    }


def _projects_of(batches: Sequence[Batch]) -> dict[int, tuple[str, ...]]:
    """Name the projects of each batch's first and last request by state: two looks into an index, however long it is."""
    names = Request.objects.filter(batch=OuterRef("pk")).values("project__name")
    ends = Batch.objects.filter(pk__in=[batch.pk for batch in batches]).annotate(
        first_of=Subquery(names.order_by("state", "pk")[:1]),
        last_of=Subquery(names.order_by("-state", "-pk")[:1]),
    )
    found = ends.values_list("pk", "first_of", "last_of")
    return {pk: tuple(dict.fromkeys(filter(None, pair))) for pk, *pair in found}


def _done_at(batch: Batch, expected: turnaround.Expected, now: datetime) -> datetime | None:
    """Guess when the provider is done: by its own pace, else by what half of the lane's batches took."""
    if batch.state != BatchState.PROCESSING or batch.create_started_at is None:
        return None
    by_pace = why.by_progress(batch, now)
    if by_pace is not None:
        return by_pace.at
    at = batch.create_started_at + expected.p50
    return at if at > now and not expected.is_guess else None


def is_late(batch: Batch, figures: Figures, now: datetime) -> bool:
    """True when the provider has had it for longer than is usual in its lane."""
    began = batch.create_started_at
    is_held = batch.state in PROVIDER_HOLDS and began is not None
    return is_held and now - began > figures.usual.slow_after  # type: ignore[operator]  # told above


def state_cell(batch: Batch, figures: Figures, now: datetime) -> SafeString:
    """Say its state and since when; red, and in words, when that is beyond the usual."""
    since = times.age(batch.state_changed_at)
    if is_late(batch, figures, now):
        usual = shown.duration(figures.usual.p90)
        words = "guessed" if figures.usual.is_guess else f"usually up to {usual}"
        late = format_html('<span class="b-late">{}, late ({})</span>', since, words)
        return _over(state_badge(batch.state), late)
    marks = [word for word, at in _marks(batch) if at]
    beside = format_html("{}{}", since, f" · {', '.join(marks)}" if marks else "")
    return _over(state_badge(batch.state), beside)


def _marks(batch: Batch) -> list[tuple[str, Any]]:
    tries = f"try {batch.tries + 1}"
    full = f"queue full {batch.token_limit_tries}×"
    return [
        ("paused", batch.paused_at),
        ("promoted", batch.promoted_at and batch.state in IN_LINE),
        (tries, batch.tries and not batch.is_final),
        (full, batch.token_limit_tries and batch.state in IN_LINE),
    ]


def lines_cell(batch: Batch, _figures: Figures, _now: datetime) -> SafeString | str:
    """Say how many requests went well, badly and are left, as figures and as a bar."""
    return shown.shares(*outcome_of(batch), total=batch.request_count)


def outcome_of(batch: Batch) -> tuple[int, int]:
    """Return how many of its requests are answered well and badly by now, as far as is known."""
    ok = _first(batch.answered_count, batch.provider_completed)
    return ok, _first(batch.failed_count, batch.provider_failed)


def _first(*values: int | None) -> int:
    """Return the first figure that is known, else 0."""
    return next((value for value in values if value is not None), 0)


def tokens_cell(batch: Batch, _figures: Figures, _now: datetime) -> SafeString:
    """Say the estimate of its input, then what it really used and what that cost."""
    estimate = shown.about(batch.token_estimate)
    if batch.input_tokens is None:
        return _over(format_html("{} est.", estimate), "")
    real = shown.about(batch.input_tokens + (batch.output_tokens or 0))
    both = format_html('<span class="b-nowrap">{} est. → {}</span>', estimate, real)
    cost = shown.money(batch.cost_nano) if batch.cost_nano is not None else "cost unknown"
    return _over(both, cost)


def next_cell(batch: Batch, figures: Figures, now: datetime) -> SafeString | str:
    """Say its place in line or when it may be done, and its deadline."""
    first: SafeString | str = ""
    if figures.place:
        first = f"{figures.place.number:,} of {figures.place.of:,} in line"
    elif figures.done_at:
        first = format_html('<span class="b-nowrap">≈ done {}</span>', times.age(figures.done_at))
    second = _limit(batch, now)
    if not first and not second:
        return shown.NOTHING
    return _over(first or second, second if first else "")


def _limit(batch: Batch, now: datetime) -> SafeString | str:
    """Name what comes first of the deadline of its requests and the end of the provider's window."""
    if batch.is_final:
        return ""
    window = batch.provider_expires_at if batch.state in PROVIDER_HOLDS else None
    ends = [(at, word) for at, word in ((batch.deliver_by, "due"), (window, "expires")) if at]
    if not ends:
        return ""
    at, word = min(ends)
    look = "b-late" if at < now + _SOON else ""
    return format_html('<span class="b-nowrap {}">{} {}</span>', look, word, times.age(at))


def project_cell(batch: Batch, figures: Figures, _now: datetime) -> str:
    """Name whose requests it holds."""
    return ", ".join(shown.cut_short(name, 24) for name in figures.projects) or shown.NOTHING


def _over(first: SafeString | str, second: SafeString | str) -> SafeString:
    return format_html(
        '<span class="b-cell"><span>{}</span><span class="b-muted">{}</span></span>', first, second
    )


LIVE: Mapping[str, Callable[[Batch, Figures, Any], SafeString | str]] = {
    "state": state_cell,
    "lines": lines_cell,
    "tokens": tokens_cell,
    "next": next_cell,
}
"""Cells that are written anew while the list is looked at."""


def live(
    name: str, batch: Batch, figures: Figures, now: datetime, *, swap: bool = False
) -> SafeString:
    """Return a cell under its name on the page; ``swap``: as htmx takes it to where it stands."""
    html = _SWAPPED if swap else _PLAIN
    return format_html(html, batch.pk, name, LIVE[name](batch, figures, now))
