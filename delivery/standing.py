"""How a destination stands: what waits there, what was given up, and how its last tries ended.

Shown by the API and the admin; decides nothing. Every figure comes by an index and reads a bounded number of
rows, so a page may ask at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Count, OuterRef, QuerySet, Subquery

from batching.models import Destination, Request
from delivery import health
from delivery.health import Health
from delivery.models import Attempt

MOST_COUNTED: Final = 10_000
_LAST_TRY: Final = Attempt.objects.filter(request=OuterRef("pk")).order_by("-pk")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why results were given up: how their last tries ended."""

    outcome: str
    """Empty: their attempts are not kept any more."""
    status: int | None
    """HTTP status, when there was one."""
    count: int

    def __str__(self) -> str:
        """Say it in words: ``http status 503``, ``timeout``."""
        words = (self.outcome or "cause not known").replace("_", " ")
        return words if self.status is None else f"{words} {self.status}"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The figures of one destination."""

    waiting: int
    """Results that are to be sent here, now or later; counted up to MOST_COUNTED, like ``given_up``."""
    oldest_due_at: datetime | None
    given_up: int
    """Results whose delivery was given up here and waits for a person."""
    causes: Sequence[Cause]
    """Of what was given up, the most frequent first; together they are ``given_up``."""
    health: Health
    """What its tries tell."""


def of(destination: Destination, *, now: datetime) -> Standing:
    """Return how a destination stands now."""
    mine = Request.objects.filter(destination=destination).order_by()
    due = mine.filter(due_at__isnull=False)
    dead = mine.filter(dead_at__isnull=False)
    given_up = dead[:MOST_COUNTED].count()
    return Standing(
        waiting=due[:MOST_COUNTED].count(),
        oldest_due_at=due.order_by("due_at").values_list("due_at", flat=True).first(),
        given_up=given_up,
        causes=causes(dead.order_by("-dead_at"), given_up) if given_up else (),
        health=health.of(destination, now=now),
    )


def dead_letters() -> QuerySet[Request]:
    """Return everything that was given up and waits for a person, in the order of its index."""
    return Request.objects.filter(dead_at__isnull=False).order_by("destination_id", "dead_at")


def causes(dead: QuerySet[Request], given_up: int) -> list[Cause]:
    """Group the first MOST_COUNTED of what was given up by how its last try ended, the most frequent first."""
    tries = _LAST_TRY.values("pk")
    chosen = Request.objects.filter(pk__in=dead.values("pk")[:MOST_COUNTED]).order_by()
    last = chosen.annotate(last=Subquery(tries[:1])).values("last")
    kinds = Attempt.objects.filter(pk__in=last).order_by().values("outcome", "status")
    found = [Cause(**kind) for kind in kinds.annotate(count=Count("pk"))]
    if (unknown := given_up - sum(cause.count for cause in found)) > 0:
        found.append(Cause(outcome="", status=None, count=unknown))
    return sorted(found, key=lambda cause: (-cause.count, cause.outcome))


def given_up_so(outcome: str, status: int | None) -> QuerySet[Request]:
    """Return those of the first MOST_COUNTED dead letters whose last try ended so: the rows of one Cause."""
    rows = Request.objects.filter(pk__in=dead_letters().values("pk")[:MOST_COUNTED]).annotate(
        last_outcome=Subquery(_LAST_TRY.values("outcome")[:1]),
        last_status=Subquery(_LAST_TRY.values("status")[:1]),
    )
    if not outcome:
        return rows.filter(last_outcome__isnull=True)
    if status is None:
        return rows.filter(last_outcome=outcome, last_status__isnull=True)
    return rows.filter(last_outcome=outcome, last_status=status)
