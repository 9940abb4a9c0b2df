"""Sending results again because someone asked: one request's, a batch's, or those of a chunk of a replay.

A replay carries the same message id as the tries before it, so a receiver can tell; it also says
``x-replay: 1``. Each result goes where its request leads by now. The API and the admin call the first two, which
raise Refused with a plain reason; ``replays`` calls the third.

While a batch delivers, its results are not sent again, or a receiver would get them twice for nothing; those that
were given up are, for a batch delivers as long as one destination is tried on, which may take days.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from batching.lifecycle import BAD_ENDS, Actor, BatchState, RequestState, arrow, move, move_many
from batching.models import Answer, Batch, Destination, Request
from batching.models.requests import NOT_GIVEN_UP
from batching.steering import Refused

_SENT = (RequestState.DELIVERED, RequestState.DELIVERY_FAILED)
ENDED = (*_SENT, RequestState.PROCESSED, *BAD_ENDS)
"""States of requests whose result may be sent again."""
_CLOSED = arrow(Batch, "redeliver").sources
_AGAIN = {"tries": 0, "replays": F("replays") + 1, "delivered_at": None, **NOT_GIVEN_UP}


def redeliver_request(request: Request, *, by: Actor, reason: str, now: datetime) -> Request:
    """Make one result due again, whatever its tries so far. Its batch follows once it is delivered.

    Refused while its batch delivers (unless it was given up), while the request has no end yet, and without a
    destination.
    """
    is_given_up = request.dead_at is not None
    if _is_delivering(request.batch) and not is_given_up:
        raise Refused(
            "invalid_batch_state", "Batch cannot redeliver while it is currently delivering"
        )
    if request.state not in ENDED:
        raise Refused("invalid_state", f"a request that is {request.state} can't be redelivered")
    if request.destination_id is None:
        raise Refused("no_destination", "the request has no destination; its client pulls")
    if not _present().filter(pk=request.destination_id).exists():
        raise Refused("no_destination", "its destination is deleted; give it another one first")
    rows = Request.objects.filter(pk=request.pk)
    with transaction.atomic():
        if not _make_due(rows, by=by, reason=reason or "redelivery asked for", now=now):
            raise Refused(
                "invalid_state", f"a request that is {request.state} can't be redelivered"
            )
        _wake([request.batch_id], now)
    request.refresh_from_db()
    return request


def redeliver_batch(
    batch: Batch, *, only_failed: bool, by: Actor, reason: str, now: datetime
) -> int:
    """Make the results of a batch due again, all or only those given up; return how many.

    All of them: refused while the batch delivers. Refused before it has results, and when there is nothing to send.
    """
    if _is_delivering(batch) and not only_failed:
        raise Refused("invalid_batch_state", "Batch is already delivering")
    if batch.state not in (*_CLOSED, BatchState.DELIVERING, BatchState.FAILED):
        raise Refused(
            "invalid_batch_state", f"a batch that is {batch.state} has nothing to redeliver"
        )
    rows = Request.objects.filter(batch=batch, destination__in=_present())
    if only_failed:
        rows = rows.given_up()
    why = reason or "redelivery asked for"
    with transaction.atomic():
        count = _make_due(rows, by=by, reason=why, now=now)
        if not count:
            raise Refused("nothing_to_do", "no result of this batch is to be redelivered")
        if _is_delivering(batch):
            _wake([batch.pk], now)
        elif batch.state != BatchState.FAILED:
            move(batch, "redeliver", reason=why, by=by, now=now, next_attempt_at=now)
    return count


def redeliver_chosen(ids: Iterable[int], *, by: Actor, reason: str, now: datetime) -> int:
    """Make the results of these requests due again as far as they may be; return how many.

    Call inside atomic. Batches follow once theirs are delivered.
    """
    rows = Request.objects.filter(pk__in=list(ids), destination__in=_present())
    held = Q(batch__state=BatchState.DELIVERING, dead_at__isnull=True)
    found = list(rows.exclude(held).values_list("pk", "batch_id"))
    chosen = Request.objects.filter(pk__in=[pk for pk, _ in found])
    count = _make_due(chosen, by=by, reason=reason, now=now)
    _wake({batch for _, batch in found}, now)
    return count


def _present() -> QuerySet[Destination]:
    return Destination.objects.present()


def _is_delivering(batch: Batch | None) -> bool:
    return batch is not None and batch.state == BatchState.DELIVERING


def _wake(batch_ids: Iterable[int | None], now: datetime) -> None:
    """Let batches be looked at again: closed ones, and those that deliver.

    One that is being closed right now was counted before these results were due: the fence stops that.
    """
    ids = [pk for pk in batch_ids if pk is not None]
    rows = Batch.objects.filter(pk__in=ids, state__in=(*_CLOSED, BatchState.DELIVERING))
    rows.update(next_attempt_at=now, fence=F("fence") + 1)


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
