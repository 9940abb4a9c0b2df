"""What happened over an hour, a day or a week, stretch by stretch, from the tallies: the figures behind the charts.

One query for each span, of as many rows as there are stretches and kinds; never a look at a hot table. The last
stretch is the running one. Read by the admin; decides no looks and knows no addresses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q

from batching.lifecycle import RequestState
from batching.models import Bookmark, Tally
from batching.models.tallies import ALWAYS
from batching.tallying import (
    ENDED,
    MOVED,
    OTHER,
    SPENT,
    TRIED,
    TURNAROUND,
    began_at,
    turnaround_bounds_s,
)

_ERRORS_SHOWN = 5
_BEGINNING = ">"
OPEN_STATES: Final = (
    RequestState.PENDING,
    RequestState.PROCESSING,
    RequestState.PROCESSED,
    RequestState.DELIVERING,
    RequestState.DELIVERY_FAILED,
)
"""States that a chart stacks: in the others requests only pile up."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time that charts show, cut into equal stretches."""

    name: str
    label: str
    width_s: int
    stretches: int

    @property
    def whole(self) -> timedelta:
        """How long it is, all in all."""
        return timedelta(seconds=self.width_s * self.stretches)


SPANS: Final = {
    span.name: span
    for span in (
        Span(name="1h", label="1 hour", width_s=60, stretches=60),
        Span(name="24h", label="24 hours", width_s=900, stretches=96),
        Span(name="7d", label="7 days", width_s=3_600, stretches=168),
    )
}


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Seconds from intake to delivery; None where nothing was delivered."""

    p50: float | None
    p90: float | None
    p99: float | None


class Timeline:
    """The figures of one span up to ``now``; every list has one value a stretch, oldest first."""

    def __init__(self, span: Span, now: datetime) -> None:
        self.span = span
        last, width = began_at(now, span.width_s), timedelta(seconds=span.width_s)
        self.starts = [last - width * back for back in range(span.stretches - 1, -1, -1)]
        self.ends = [start + width for start in self.starts]
        self._counts: dict[str, dict[str, list[int]]] = defaultdict(dict)
        self._ever: Counter[str] = Counter()
        self._read()

    def _read(self) -> None:
        place = {start: number for number, start in enumerate(self.starts)}
        within = Q(width_s=self.span.width_s, began_at__gte=self.starts[0])
        rows = Tally.objects.filter(within | Q(width_s=ALWAYS, measure=MOVED)).order_by()
        for width_s, began, measure, name, count in rows.values_list(
            "width_s", "began_at", "measure", "name", "count"
        ):
            if width_s == ALWAYS:
                self._ever[name] += count
            elif began in place:  # one from the future is from before a clock was set back
                self._of(measure, name)[place[began]] += count

    def _of(self, measure: str, name: str) -> list[int]:
        return self._counts[measure].setdefault(name, [0] * self.span.stretches)

    @property
    def is_empty(self) -> bool:
        """True when nothing ever happened that was counted."""
        return not self._ever

    def accepted(self) -> list[int]:
        """Requests that were accepted."""
        moved = self._counts[MOVED]
        return self._sum(counts for name, counts in moved.items() if name.startswith(_BEGINNING))

    def delivered(self) -> list[int]:
        """Results that reached their destination, good and bad ends alike."""
        return self._of(TRIED, "delivered")

    def spent(self, name: str) -> int:
        """Sum one of ``cost``, ``ordinary``, ``input``, ``output`` over the span."""
        return sum(self._of(SPENT, name))

    def levels(self) -> dict[str, list[int]]:
        """Return how many requests stood at each open state at the end of each stretch."""
        return {str(state): self._level(str(state)) for state in OPEN_STATES}

    def _level(self, state: str) -> list[int]:
        level = sum(_step(name, state) * count for name, count in self._ever.items())
        steps = [0] * self.span.stretches
        for name, counts in self._counts[MOVED].items():
            if step := _step(name, state):
                steps = [sofar + step * count for sofar, count in zip(steps, counts, strict=True)]
        levels = []
        for step in reversed(steps):
            levels.append(max(0, level))
            level -= step
        return levels[::-1]

    def turnaround(self) -> list[Percentiles]:
        """Return how long results took from intake to their first delivery."""
        buckets = sorted(self._counts[TURNAROUND].items())
        return [
            percentiles([(int(name), counts[place]) for name, counts in buckets if counts[place]])
            for place in range(self.span.stretches)
        ]

    def errors(self) -> dict[str, list[int]]:
        """Return bad ends by class, the most frequent first: ``failed:code``, ``expired``, ``cancelled``."""
        classes: dict[str, list[int]] = {}
        for name, counts in self._counts[ENDED].items():
            state, _, code = name.partition(":")
            known = name if state == RequestState.FAILED and code != OTHER else state
            known = f"{state}:{OTHER}" if known == RequestState.FAILED else known
            classes[known] = self._sum([classes.get(known, [0] * len(counts)), counts])
        return self._few(classes)

    def _few(self, classes: dict[str, list[int]]) -> dict[str, list[int]]:
        rest_of = f"{RequestState.FAILED}:{OTHER}"
        known = sorted(classes, key=lambda name: (name == rest_of, -sum(classes[name]), name))
        shown, rest = known[:_ERRORS_SHOWN], known[_ERRORS_SHOWN:]
        if len(rest) == 1:
            shown, rest = known, []
        few = {name: classes[name] for name in shown}
        return few | ({OTHER: self._sum(classes[name] for name in rest)} if rest else {})

    def _sum(self, lists: Iterable[list[int]]) -> list[int]:
        total = [0] * self.span.stretches
        for counts in lists:
            total = [sofar + count for sofar, count in zip(total, counts, strict=True)]
        return total


def _step(arrow: str, state: str) -> int:
    """Return by how much a move along ``source>target`` changes the number at ``state``."""
    source, _, target = arrow.partition(">")
    return (target == state) - (source == state)


def percentiles(buckets: Sequence[tuple[int, int]]) -> Percentiles:
    """Return percentiles of buckets (number, count), ascending; read evenly between a bucket's bounds."""
    p50, p90, p99 = (_percentile(buckets, share) for share in (0.5, 0.9, 0.99))
    return Percentiles(p50=p50, p90=p90, p99=p99)


def _percentile(buckets: Sequence[tuple[int, int]], share: float) -> float | None:
    bounds = turnaround_bounds_s()
    wanted = share * sum(count for _, count in buckets)
    passed = 0
    for number, count in buckets:
        if passed + count >= wanted:
            low = bounds[number - 1] if number else 0.0
            high = bounds[number] if number < len(bounds) else bounds[-1] * 1.5
            return round(low + (high - low) * (wanted - passed) / count, 2)
        passed += count
    return None


def counted_until() -> datetime | None:
    """Return up to when everything is counted; None before the first time. One query."""
    marks = Bookmark.objects.values_list("counted_at", flat=True)
    times = [at for at in marks if at is not None]
    return min(times, default=None)
