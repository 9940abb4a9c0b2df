"""Sending results again because someone asked: one request's, or a batch's.

A replay carries the same message id as the tries before it, so a receiver can tell; it also says
``x-replay: 1``. The API and the admin call these; each raises Refused with a plain reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from batching.lifecycle import BAD_ENDS, Actor, BatchState, RequestState, arrow, move, move_many
from batching.models import Answer, Batch, Request
from batching.steering import Refused

_SENT = (RequestState.DELIVERED, RequestState.DELIVERY_FAILED)
_ENDED = (*_SENT, RequestState.PROCESSED, *BAD_ENDS)
_AGAIN = {"tries": 0, "replays": F("replays") + 1, "delivered_at": None, "dead_at": None}


def redeliver_request(request: Request, *, by: Actor, reason: str, now: datetime) -> Request:
    """Make one result due again, whatever its tries so far. Its batch follows once it is delivered.

    Refused while its batch delivers, while the request has no end yet, and without a destination.
    """
    if request.batch is not None and request.batch.state == BatchState.DELIVERING:
        raise Refused(
            "invalid_batch_state", "Batch cannot redeliver while it is currently delivering"
        )
    if request.state not in _ENDED:
        raise Refused("invalid_state", f"a request that is {request.state} can't be redelivered")
    if request.destination_id is None:
        raise Refused("no_destination", "the request has no destination; its client pulls")
    rows = Request.objects.filter(pk=request.pk)
    with transaction.atomic():
        if not _make_due(rows, by=by, reason=reason or "redelivery asked for", now=now):
            raise Refused(
                "invalid_state", f"a request that is {request.state} can't be redelivered"
            )
        closed = arrow(Batch, "redeliver").sources
        its_batch = Batch.objects.filter(requests=request, state__in=closed)
        Batch.objects.filter(pk__in=its_batch).update(next_attempt_at=now)
    request.refresh_from_db()
    return request


def redeliver_batch(
    batch: Batch, *, only_failed: bool, by: Actor, reason: str, now: datetime
) -> int:
    """Make the results of a batch due again, all or only those given up; return how many.

    Refused while the batch delivers, before it has results, and when there is nothing to send.
    """
    if batch.state == BatchState.DELIVERING:
        raise Refused("invalid_batch_state", "Batch is already delivering")
    if batch.state not in (*arrow(Batch, "redeliver").sources, BatchState.FAILED):
        raise Refused(
            "invalid_batch_state", f"a batch that is {batch.state} has nothing to redeliver"
        )
    rows = Request.objects.filter(batch=batch, destination__isnull=False)
    if only_failed:
        rows = rows.filter(dead_at__isnull=False)
    why = reason or "redelivery asked for"
    with transaction.atomic():
        count = _make_due(rows, by=by, reason=why, now=now)
        if not count:
            raise Refused("nothing_to_do", "no result of this batch is to be redelivered")
        if batch.state != BatchState.FAILED:
            move(batch, "redeliver", reason=why, by=by, now=now, next_attempt_at=now)
    return count


def _make_due(rows: QuerySet[Request], *, by: Actor, reason: str, now: datetime) -> int:
    """Make ended results due: those with a good answer are processed again, bad ends stay bad."""
    changes: dict[str, Any] = {**_AGAIN, "due_at": now}
    present = Answer.objects.filter(request=OuterRef("pk"), attempt=OuterRef("attempt"))
    good = rows.filter(Exists(present), state__in=_SENT)
    count = move_many(good, "redeliver", reason=reason, by=by, now=now, changes=changes)
    count += rows.filter(state__in=BAD_ENDS, due_at__isnull=True).update(**changes)
    return count + _hurry(rows, now)


def _hurry(rows: QuerySet[Request], now: datetime) -> int:
    """Bring forward results that wait for their next try anyway."""
    waiting = rows.filter(state__in=[RequestState.PROCESSED, *BAD_ENDS], due_at__gt=now)
    return waiting.update(due_at=now, tries=0)
