"""When is a batch done? Once nothing of it is on its way: then its end is read off its requests.

Called by the clock for batches that deliver, and after a redelivery from a batch that had ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Q

from batching.claims import each, note
from batching.lifecycle import Actor, BatchState, RequestState, move
from batching.models import Batch

_CLOSER = Actor(name="closing")
_CLOSED = (BatchState.DELIVERED, BatchState.PARTIALLY_DELIVERED, BatchState.DELIVERY_FAILED)
_LOOK_AGAIN = timedelta(seconds=2)
_LONGEST = timedelta(minutes=5)


def close_due(now: datetime) -> int:
    """Close every batch with nothing left on its way; return how many were looked at."""
    open_ones = Batch.objects.due(now, BatchState.DELIVERING, *_CLOSED)
    return each(open_ones.select_related("lane__account"), _close, now=now)


def _close(batch: Batch, now: datetime) -> None:
    if batch.requests.filter(due_at__isnull=False).exists():
        age = now - batch.state_changed_at
        note(batch, next_attempt_at=now + min(max(_LOOK_AGAIN, age / 10), _LONGEST))
        return
    counts = tally(batch)
    name = verdict(counts)
    reason = f"{counts['delivered']:,} delivered, {counts['undelivered']:,} not, {counts['failed']:,} failed"
    with transaction.atomic():
        if batch.state in _CLOSED:
            if batch.state == name:
                note(batch, next_attempt_at=None)
                return
            move(batch, "redeliver", reason="a result was sent again", by=_CLOSER, now=now)
        move(
            batch,
            name,
            reason=reason,
            by=_CLOSER,
            now=now,
            answered_count=counts["delivered"] + counts["undelivered"],
            failed_count=counts["failed"],
            next_attempt_at=None,
        )


def tally(batch: Batch) -> dict[str, int]:
    """Count a batch's requests by what became of them."""
    s = RequestState
    kept_for_pulling = Q(state=s.PROCESSED, destination__isnull=True)
    return batch.requests.aggregate(
        delivered=Count("pk", filter=Q(state=s.DELIVERED) | kept_for_pulling),
        undelivered=Count("pk", filter=Q(state=s.DELIVERY_FAILED)),
        failed=Count("pk", filter=Q(state__in=[s.FAILED, s.EXPIRED])),
    )


def verdict(counts: dict[str, int]) -> str:
    """Return the transition that fits: all well, some well, or none."""
    wrong = counts["undelivered"] + counts["failed"]
    if not wrong:
        return "delivered"
    return "partially_delivered" if counts["delivered"] else "delivery_failed"
