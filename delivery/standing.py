"""How a destination stands: what waits there, what was given up, and how its last tries ended.

Shown by the API and the admin; decides nothing. Every figure comes by an index and reads a bounded number of
rows, so a page may ask at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batching.models import Destination, Request
from delivery import health
from delivery.health import Health

MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The figures of one destination."""

    waiting: int
    """Results that are to be sent here, now or later; counted up to MOST_COUNTED, like ``given_up``."""
    oldest_due_at: datetime | None
    given_up: int
    """Results whose delivery was given up here and waits for a person."""
    health: Health
    """What its tries tell."""


def of(destination: Destination, *, now: datetime) -> Standing:
    """Return how a destination stands now."""
    mine = Request.objects.filter(destination=destination).order_by()
    due = mine.filter(due_at__isnull=False)
    return Standing(
        waiting=due[:MOST_COUNTED].count(),
        oldest_due_at=due.order_by("due_at").values_list("due_at", flat=True).first(),
        given_up=mine.filter(dead_at__isnull=False)[:MOST_COUNTED].count(),
        health=health.of(destination, now=now),
    )
