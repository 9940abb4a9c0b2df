"""How a destination's latest tries ended: the share that arrived, how long they took, and the course of it.

Read for people by the admin. Only the latest tries are looked at, by the index on destination and id, so a page
costs the same whether there were a thousand or a hundred million.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from delivery.models import Attempt
from delivery.outcome import Code

FEW: Final = 100
"""Tries of each destination that a list looks at."""
MANY: Final = 1_000
"""Tries that a destination's own page looks at."""
STRETCHES: Final = 24
_READ: Final = ("destination_id", "outcome", "next_at", "duration_s", "ended_at")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One try."""

    is_delivered: bool
    is_last: bool
    """No further try is due: delivered, or given up."""
    took_s: float
    ended_at: datetime


@dataclass(frozen=True, kw_only=True)
class Course:
    """The latest tries of one destination, in figures."""

    tries: int
    delivered: int
    p95_s: float | None
    """Nineteen of twenty of those that arrived took no longer; None: none arrived."""

    @property
    def share(self) -> float | None:
        """The part that arrived, 0 to 1; None: nothing was tried."""
        return self.delivered / self.tries if self.tries else None


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """How tries ended within a stretch of time."""

    began_at: datetime
    delivered: int
    tried_again: int
    """Failed, and another try was due."""
    given_up: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.delivered + self.tried_again + self.given_up


def latest(destinations: Iterable[int], *, most: int) -> Mapping[int, list[Tried]]:
    """Return up to ``most`` of the latest tries of each destination, newest first; one query."""
    parts = [
        Attempt.objects.filter(
            pk__in=Attempt.objects.filter(destination=pk).order_by("-pk").values("pk")[:most]
        )
        .order_by()
        .values_list(*_READ)
        for pk in dict.fromkeys(destinations)
    ]
    found: dict[int, list[Tried]] = defaultdict(list)
    if not parts:
        return found
    rows = parts[0].union(*parts[1:], all=True) if len(parts) > 1 else parts[0]
    for destination, outcome, next_at, duration_s, ended_at in rows:
        found[destination].append(
            Tried(
                is_delivered=outcome == Code.DELIVERED,
                is_last=next_at is None,
                took_s=duration_s,
                ended_at=ended_at,
            )
        )
    for tries in found.values():
        tries.sort(key=lambda one: one.ended_at, reverse=True)
    return found


def course_of(tries: Sequence[Tried]) -> Course:
    """Return the figures of some tries."""
    took = sorted(one.took_s for one in tries if one.is_delivered)
    place = -(-len(took) * 95 // 100) - 1
    return Course(tries=len(tries), delivered=len(took), p95_s=took[place] if took else None)


def stretches_of(tries: Sequence[Tried]) -> list[Stretch]:
    """Part the time from the first to the last of these tries into STRETCHES, the oldest first."""
    if not tries:
        return []
    began = min(one.ended_at for one in tries)
    width = (max(one.ended_at for one in tries) - began) / STRETCHES
    counts = [[0, 0, 0] for _ in range(STRETCHES)]
    for one in tries:
        place = int((one.ended_at - began) / width) if width else 0
        kind = 0 if one.is_delivered else 2 if one.is_last else 1
        counts[min(place, STRETCHES - 1)][kind] += 1
    return [
        Stretch(began_at=began + place * width, delivered=good, tried_again=again, given_up=bad)
        for place, (good, again, bad) in enumerate(counts)
    ]
