"""How long a lane's batches take, from their creation at the provider until their results are here: learned.

The last hundred spans of each lane are kept in one small row, written when a batch ends. Percentiles of them
say when a deadline asks for something, and are shown as estimates. A lane that has ended too few batches has
no figures: then a guess is used, and marked as one. Called by collection, packing and deadlines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from batching.models import Batch, Lane, Turnaround

_REMEMBERED = 100
_ENOUGH = 3
"""Batches, before their figures count."""
_SLACK = timedelta(minutes=2)
"""For what is before and after the provider: upload, turns of the clock, delivery."""
_GATHER = timedelta(seconds=30)
"""How long a batch builds at least, so that urgent requests that come one by one share batches."""
_GUESS = timedelta(hours=1)
"""Most batches are back within it (OpenAI's and Anthropic's batch guides, 2026); promised are 24 hours."""

_PROMISED = timedelta(hours=24)
"""The completion window that both providers state (the same guides)."""
_SLOW_AT_LEAST = timedelta(minutes=10)
_MOST_LOOKED_AT = 10_000


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How long a batch of a lane takes, as far as we know."""

    p50: timedelta
    """Half of them are back by then."""
    p90: timedelta
    batches: int
    """How many it was learned from; 0: it is a guess."""

    @property
    def is_guess(self) -> bool:
        """True when too few batches have ended to say."""
        return self.batches == 0

    @property
    def slow_after(self) -> timedelta:
        """Longer than this is not usual: twice what nine of ten batches take; the provider's promise, if unknown."""
        return _PROMISED if self.is_guess else max(2 * self.p90, _SLOW_AT_LEAST)

    def seal_by(self, deliver_by: datetime, opened_at: datetime) -> datetime:
        """Return when a batch is to be sealed at the latest for the sake of this deadline."""
        return max(deliver_by - self.p90 - _SLACK, opened_at + _GATHER)

    def near_until(self, now: datetime) -> datetime:
        """Return up to which deadline one is near: nine of ten batches sent now meet a later one."""
        return now + self.p90 + _SLACK

    def too_late_until(self, now: datetime) -> datetime:
        """Return up to which deadline it is too late: more than half of the batches sent now would miss it.

        Without figures only a deadline that has passed is.
        """
        return now if self.is_guess else now + self.p50


GUESS = Expected(p50=_GUESS, p90=_GUESS, batches=0)


def learn(batch: Batch, now: datetime) -> None:
    """Add a batch whose results are here to the figures of its lane."""
    began = batch.create_started_at
    if began is None or now < began or batch.cancel_asked:
        return
    with transaction.atomic():
        Turnaround.objects.get_or_create(lane_id=batch.lane_id)
        row = Turnaround.objects.select_for_update().get(lane_id=batch.lane_id)
        row.spans_s = [*row.spans_s, int((now - began).total_seconds())][-_REMEMBERED:]
        row.p50_s, row.p90_s = _percentile(row.spans_s, 50), _percentile(row.spans_s, 90)
        row.batches += 1
        row.learned_at = now
        row.save()


def expected(lane: Lane | int) -> Expected:
    """Return what to expect of a lane's next batch, given the lane or its number."""
    pk = lane if isinstance(lane, int) else lane.pk
    return expected_of([pk]).get(pk, GUESS)


def expected_of(lanes: Iterable[int]) -> Mapping[int, Expected]:
    """Return the figures of those lanes, by number, that have ended enough batches. One query."""
    rows = Turnaround.objects.filter(lane__in=list(lanes), batches__gte=_ENOUGH)
    return {
        row.lane_id: Expected(
            p50=timedelta(seconds=row.p50_s),
            p90=timedelta(seconds=row.p90_s),
            batches=row.batches,
        )
        for row in rows
    }


def slow(now: datetime) -> list[int]:
    """Return the numbers of the batches that the provider has had for longer than is usual. Two queries."""
    old = Batch.objects.held_by_provider().filter(create_started_at__lt=now - _SLOW_AT_LEAST)
    rows = old.order_by("pk").values_list("pk", "lane_id", "create_started_at")
    held = [(pk, lane, began) for pk, lane, began in rows[:_MOST_LOOKED_AT] if began is not None]
    usual = expected_of({lane for _, lane, _ in held}) if held else {}
    return [pk for pk, lane, began in held if now - began > usual.get(lane, GUESS).slow_after]


def _percentile(spans: list[int], percent: int) -> int:
    """Return the smallest span that ``percent`` of them do not exceed (nearest rank)."""
    place = -(-len(spans) * percent // 100)
    return sorted(spans)[place - 1]
