"""Who is next in a lane: the order of its batches, their places, and the rank that a move gives.

First goes who was promoted, then who was overtaken too often, then by priority, rank and age. Places are
counted when someone asks and stored nowhere, so a batch that leaves changes no other row. ``admission``
follows this order; ``queueing`` changes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection
from django.db.models import Q

from batching.lifecycle import BatchState
from batching.models import Batch, Lane
from batching.models.batches import IN_LINE, BatchQuerySet
from batching.overrides import effective

STEP = 2**20
"""Between two ranks when nothing else decides: twenty batches in turn find room between the two."""
MOVABLE = (BatchState.BUILDING, *IN_LINE)
"""States in which a place in the lane still matters."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a batch stands in its lane."""

    number: int
    """1: it is the next."""
    of: int
    """How many wait in the lane."""

    def __str__(self) -> str:
        return f"place {self.number:,} of {self.of:,} in its lane"


def in_order(rows: BatchQuerySet) -> BatchQuerySet:
    """Sort batches by who goes first."""
    return rows.in_order(effective("BATCHER_MAX_OVERTAKES"))


def line_of(lane: Lane) -> BatchQuerySet:
    """Return the batches that have a place in the lane, who goes first in front; paused ones keep theirs."""
    return in_order(Batch.objects.filter(lane=lane, state__in=IN_LINE))


def place_of(batch: Batch) -> Place | None:
    """Return a batch's place in its lane; None when it is not in line. One query."""
    return places_of([batch]).get(batch.pk)


def places_of(batches: Iterable[Batch]) -> dict[int, Place]:
    """Return the places of those that are in line, by number of the batch. One query for all."""
    lanes = {batch.lane_id for batch in batches if batch.state in IN_LINE}
    if not lanes:
        return {}
    waiting = in_order(Batch.objects.filter(lane__in=lanes, state__in=IN_LINE))
    lines: dict[int, list[int]] = {}
    for pk, lane in waiting.values_list("pk", "lane_id"):
        lines.setdefault(lane, []).append(pk)
    return {
        pk: Place(number=number, of=len(line))
        for line in lines.values()
        for number, pk in enumerate(line, start=1)
    }


def rank_before(other: Batch) -> int:
    """Return a rank just before ``other`` among those of its priority. Call under the lane's lock."""
    rank = _between(other)
    if rank is None:
        _spread(other.lane_id)
        other.refresh_from_db(fields=["rank"])
        rank = _between(other)
    if rank is None:
        raise AssertionError("no room between two batches that were just spread")
    return rank


def rank_at_end(last: Batch | None) -> int:
    """Return a rank behind ``last`` and all that were opened until now; new ones come after it."""
    return max(time.time_ns(), last.rank + STEP if last else 0)


def _between(other: Batch) -> int | None:
    """Return the middle between a batch and the one before it; None when nothing is between them."""
    peers = Batch.objects.filter(lane=other.lane_id, state__in=MOVABLE, priority=other.priority)
    ahead = peers.filter(Q(rank__lt=other.rank) | Q(rank=other.rank, pk__lt=other.pk))
    before = ahead.order_by("-rank").values_list("rank", flat=True).first()
    if before is None:
        return other.rank - STEP
    middle = (before + other.rank) // 2
    return middle if before < middle < other.rank else None


_SPREAD = """
    UPDATE {batch} SET rank = placed.lowest + placed.number * %s FROM (
        SELECT id AS placed_id, MIN(rank) OVER () AS lowest,
            ROW_NUMBER() OVER (ORDER BY rank, id) AS number
        FROM {batch} WHERE lane_id = %s AND state IN ({states})
    ) AS placed WHERE id = placed.placed_id
"""


def _spread(lane_id: int) -> None:
    """Give the lane's waiting batches new ranks in the order that they have, far apart; one statement."""
    sql = _SPREAD.format(
        batch=Batch._meta.db_table, states=", ".join(["%s"] * len(MOVABLE))
    )  # our own names
    with connection.cursor() as cursor:
        cursor.execute(sql, [STEP, lane_id, *map(str, MOVABLE)])
