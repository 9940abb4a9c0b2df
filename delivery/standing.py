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


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why results were given up: how their last tries ended."""

    outcome: str
    """Empty: their attempts are not kept any more."""
    status: int | None
    """HTTP status, when there was one."""
    count: int


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
        causes=_causes(dead.order_by("-dead_at"), given_up) if given_up else (),
        health=health.of(destination, now=now),
    )


def _causes(dead: QuerySet[Request], given_up: int) -> list[Cause]:
    """Group what was given up by how its last try ended."""
    tries = Attempt.objects.filter(request=OuterRef("pk")).order_by("-pk").values("pk")
    chosen = Request.objects.filter(pk__in=dead.values("pk")[:MOST_COUNTED]).order_by()
    last = chosen.annotate(last=Subquery(tries[:1])).values("last")
    kinds = Attempt.objects.filter(pk__in=last).order_by().values("outcome", "status")
    found = [Cause(**kind) for kind in kinds.annotate(count=Count("pk"))]
    if (unknown := given_up - sum(cause.count for cause in found)) > 0:
        found.append(Cause(outcome="", status=None, count=unknown))
    return sorted(found, key=lambda cause: (-cause.count, cause.outcome))
