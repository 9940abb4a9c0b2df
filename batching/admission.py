"""Which waiting batch may go to the provider now, and why another may not.

``capacity`` says whether there is room. In a lane the oldest batch that fits goes first. The
decision and the intent to create are one transaction under the account's lock, so limits hold
whatever the number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction

from batching import capacity
from batching.claims import running_clock
from batching.lifecycle import Actor, BatchState, move
from batching.models import Account, Batch
from batching.providers.registry import traits_for

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
            refusal = _refusal(batch, now)
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
                doubtful_since=None,
                next_attempt_at=now + CREATE_LEASE,
                wait_reason="",
            )
    return None


def _refusal(batch: Batch, now: datetime) -> str:
    """Return why the batch may not go now; empty when it may."""
    if not batch.lane.account.is_enabled:
        return f"account {batch.lane.account.name} is switched off"
    if not traits_for(batch.lane.account.kind).tags_batches and _is_creating(batch.lane.account_id):
        return "waiting to hear what became of another batch that is being created in its account"
    return capacity.refusal(batch, now)


def _is_creating(account_id: int) -> bool:
    """Tell whether a creation is under way, or in doubt: where batches have no names, one at a time."""
    unknown = Batch.objects.filter(
        lane__account_id=account_id,
        state__in=(BatchState.SUBMITTING, BatchState.CANCELLING),
        provider_batch_id="",
    )
    return unknown.exists()


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
