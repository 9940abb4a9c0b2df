"""How a destination fares, drawn and told: columns of its list, and the chart of its page.

Lengths are shares of the chart in per cent, so that it needs no script; the table behind it says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.db.models import OuterRef, QuerySet, Subquery

from batching.admin import shown
from batching.models import Destination, Request
from delivery import health, tried
from delivery.tried import Course, Stretch

if TYPE_CHECKING:
    from datetime import datetime

    from delivery.health import Health

_GAP: Final = 15
"""Per cent of a column's room that stays empty."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One rectangle of the chart."""

    kind: str
    """``good``, ``again`` or ``bad``."""
    x: str
    y: str
    width: str
    height: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Fares:
    """What a destination's row in the list tells."""

    course: Course
    health: Health


def with_oldest_due(rows: QuerySet[Destination]) -> QuerySet[Destination]:
    """Put on each row since when its oldest result is due, from the front of the index on it."""
    due = Request.objects.filter(destination=OuterRef("pk"), due_at__isnull=False)
    return rows.annotate(oldest_due_at=Subquery(due.order_by("due_at").values("due_at")[:1]))


def fares_of(rows: Sequence[Destination], now: datetime) -> Mapping[int, Fares]:
    """Return how destinations fare, by number; two queries for all of them."""
    tries = tried.latest([row.pk for row in rows], most=tried.FEW)
    found = health.of_many(rows, now=now)
    return {
        row.pk: Fares(course=tried.course_of(tries.get(row.pk, [])), health=found[row.pk])
        for row in rows
    }


def pieces_of(stretches: Sequence[Stretch]) -> list[Piece]:
    """Return the rectangles of stacked columns: delivered below, then tried again, then given up."""
    highest = max((one.total for one in stretches), default=0)
    room = 100 / len(stretches) if stretches else 0
    pieces = []
    for place, one in enumerate(stretches):
        top = 100.0
        words = f"from {one.began_at:%m-%d %H:%M} UTC: {_in_words(one)}"
        for kind, count in (
            ("good", one.delivered),
            ("again", one.tried_again),
            ("bad", one.given_up),
        ):
            if not count:
                continue
            height = 100 * count / highest
            top -= height
            pieces.append(
                Piece(
                    kind=kind,
                    x=f"{place * room:.2f}%",
                    y=f"{top:.2f}%",
                    width=f"{room * (100 - _GAP) / 100:.2f}%",
                    height=f"{height:.2f}%",
                    words=words,
                )
            )
    return pieces


def _in_words(one: Stretch) -> str:
    return (
        f"{one.delivered:,} delivered, {one.tried_again:,} tried again, {one.given_up:,} given up"
    )


def share(course: Course) -> str:
    """Return the part that arrived in words."""
    if course.share is None:
        return shown.NOTHING
    return (
        f"{100 * course.share:.0f} %" if course.share in (0, 1) else f"{100 * course.share:.1f} %"
    )


def milliseconds(seconds: float | None) -> str:
    """Return a latency."""
    return shown.NOTHING if seconds is None else f"{seconds * 1_000:,.0f} ms"
