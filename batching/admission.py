"""Which waiting batch may go to the provider now, and why another may not.

Capacity is counted in estimated tokens, per account and model, over every batch that the provider
holds or may hold (submitting included). In a lane the oldest batch that fits goes first. The
decision and the intent to create are one transaction under the account's lock, so limits hold
whatever the number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Sum

from batching.claims import running_clock
from batching.lifecycle import Actor, BatchState, move
from batching.limits import token_limit
from batching.models import Account, Batch

logger = logging.getLogger(__name__)

_ADMISSION = Actor(name="admission")
_WAITING = (BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY)
CREATE_LEASE = timedelta(seconds=120)
"""Longer than the create call's deadline: while it runs, nobody looks for its outcome."""
_LOOK_AGAIN = timedelta(seconds=5)


def next_up(now: datetime) -> Iterator[Batch]:
    """Move the batches that may go now to submitting, one by one, and yield each to be created.

    The intent to create a batch is committed just before it is yielded, so a worker that dies leaves
    one creation in doubt, not all that were to follow. Batches that may not go wait with a reason and
    are looked at again in a few seconds.
    """
    clock = running_clock(now)
    due = Batch.objects.due(now, *_WAITING)
    accounts = due.order_by().values_list("lane__account", flat=True).distinct()
    for account_id in list(accounts):
        while batch := _admit(account_id, clock()):
            yield batch


def _admit(account_id: int, now: datetime) -> Batch | None:
    """Admit the oldest waiting batch of the account that fits."""
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account_id)
        # Locked, so that nobody cancels one between the decision and the intent.
        waiting = Batch.objects.select_for_update(skip_locked=True, of=("self",))
        waiting = waiting.due(now, *_WAITING).filter(lane__account=account)
        for batch in waiting.order_by("pk").select_related("lane"):
            batch.lane.account = account
            refusal = _refusal(batch)
            if refusal:
                _keep_waiting(batch, refusal, now)
                continue
            batch.fence += 1
            batch.save(update_fields=["fence"])
            return move(
                batch,
                "submit",
                reason="there is room at the provider",
                by=_ADMISSION,
                now=now,
                create_started_at=now,
                next_attempt_at=now + CREATE_LEASE,
                wait_reason="",
            )
    return None


def _refusal(batch: Batch) -> str:
    """Return why the batch may not go now; empty when it may."""
    if not batch.lane.account.is_enabled:
        return f"account {batch.lane.account.name} is switched off"
    held = reserved_tokens(batch)
    limit = token_limit(batch.lane)
    if held and held + batch.token_estimate > limit:
        return (
            f"waiting for {batch.token_estimate:,} of {limit:,} enqueued tokens;"
            f" {held:,} are held by batches at the provider"
        )
    return ""


def reserved_tokens(batch: Batch) -> int:
    """Return the tokens that the provider holds, or may hold, in this batch's account and model."""
    lane = batch.lane
    held = Batch.objects.held_by_provider().filter(
        lane__account_id=lane.account_id, lane__model=lane.model
    )
    return int(held.aggregate(total=Sum("token_estimate", default=0))["total"])


def _keep_waiting(batch: Batch, reason: str, now: datetime) -> None:
    if batch.state == BatchState.WAITING_FOR_CAPACITY:
        Batch.objects.filter(pk=batch.pk).update(
            next_attempt_at=now + _LOOK_AGAIN, wait_reason=reason
        )
        return
    move(
        batch,
        "wait",
        reason=reason,
        by=_ADMISSION,
        now=now,
        wait_reason=reason,
        waiting_since=batch.waiting_since or now,
        next_attempt_at=now + _LOOK_AGAIN,
    )
