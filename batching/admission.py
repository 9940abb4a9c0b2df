"""Which waiting batch may go to the provider now, and why another may not.

``order`` says who is next, ``capacity`` whether there is room. The first that fits goes; one that was
overtaken too often is waited for. The decision and the intent to create are one transaction under the
account's lock, so limits hold whatever the number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from batching import order, polling
from batching.capacity import Refusal, Room
from batching.claims import running_clock
from batching.lifecycle import Actor, BatchState, Stale, move
from batching.models import Account, Batch, Lane
from batching.overrides import effective
from batching.providers.registry import traits_for

logger = logging.getLogger(__name__)

_ADMISSION = Actor(name="admission")
_WAITING = (BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY)
CREATE_LEASE = timedelta(seconds=120)
"""Longer than the create call's deadline: while it runs, nobody looks for its outcome."""
_READ = (
    *(
        "state",
        "fence",
        "lane_id",
        "request_count",
        "token_estimate",
        "priority",
        "rank",
        "overtaken",
    ),
    *("promoted_at", "paused_at", "pause_reason", "wait_reason", "waiting_since", "key"),
)
"""All that a look along a line asks for; a line may be thousands long."""
_TOLD_EACH = 20
"""How many batches of a lane are told what each of them waits for; the others, that these are ahead."""
_BEHIND = "other batches are ahead of it in its lane"


def next_up(now: datetime) -> Iterator[Batch]:
    """Move the batches that may go now to submitting, one by one, and yield each to be created.

    The intent to create a batch is committed just before it is yielded, so a worker that dies leaves
    one creation in doubt, not all that were to follow. Batches that may not go wait with a reason and
    are looked at again at the next tick.
    """
    clock = running_clock(now)
    due = Batch.objects.due(now, *_WAITING)
    accounts = due.order_by().values_list("lane__account", flat=True).distinct()
    for account_id in list(accounts):
        while batch := _admit(account_id, clock()):
            yield batch


def _admit(account_id: int, now: datetime) -> Batch | None:
    """Admit the first batch of the account's order that fits; when there is none, say why not."""
    with transaction.atomic():
        account = Account.objects.select_for_update(no_key=True).get(pk=account_id)
        line = _line(account, now)
        look = _Look(account, now)
        for batch in line:
            if look.refusal(batch):
                continue
            if admitted := _start(batch, now):
                _count_overtaken(batch, line, look)
                return admitted
        _tell(line, look.refused, now)
    return None


def _line(account: Account, now: datetime) -> list[Batch]:
    """Return the account's batches that may be tried now, who goes first in front."""
    due = Batch.objects.due(now, *_WAITING).filter(lane__account=account)
    lanes = Lane.objects.in_bulk(list(due.order_by().values_list("lane", flat=True).distinct()))
    line = list(order.in_order(due).only(*_READ))
    for batch in line:
        batch.lane = lanes[batch.lane_id]
        batch.lane.account = account
    return line


@dataclass
class _Look:
    """One look along an account's line: who was refused so far, and why."""

    account: Account
    now: datetime
    refused: dict[int, str] = field(default_factory=dict)
    """By number of the batch."""
    passed: list[tuple[Batch, Refusal]] = field(default_factory=list)
    """Those that have no room, and so are overtaken by who goes."""

    def __post_init__(self) -> None:
        self._room = Room(self.account, self.now)
        self._account_is_held = _held_account(self.account)

    def refusal(self, batch: Batch) -> str:
        """Return why the batch may not go now; empty when it may."""
        reason = self._account_is_held or _held(batch)
        if not reason and (no_room := self._room.refusal(batch)):
            self.passed.append((batch, no_room))
            reason = no_room.reason
        reason = reason or self._goes_first(batch)
        if reason:
            self.refused[batch.pk] = reason
        return reason

    def _goes_first(self, batch: Batch) -> str:
        """Say for whom the room is kept; a promoted batch keeps it for nobody."""
        for other, no_room in self.passed:
            is_overdue = other.overtaken >= effective("BATCHER_MAX_OVERTAKES")
            if is_overdue and no_room.concerns(batch) and not batch.promoted_at:
                return f"batch {other.pk} goes first: {other.overtaken:,} went in its stead so far"
        return ""


def _held_account(account: Account) -> str:
    """Say what keeps every batch of the account from being started."""
    if not account.is_enabled:
        return f"account {account.name} is switched off"
    if account.paused_at:
        return f"account {account.name} is paused: {account.pause_reason}"
    if silence := polling.silence_of(account):
        return (
            silence  # what is asked for now would be in doubt, and hold its room until that is over
        )
    if not traits_for(account.kind).tags_batches and _is_creating(account.pk):
        return "waiting to hear what became of another batch that is being created in its account"
    return ""


def _held(batch: Batch) -> str:
    """Say whether a person keeps the batch or its lane from being started."""
    if batch.paused_at:
        return f"paused: {batch.pause_reason}"
    return f"its lane is paused: {batch.lane.pause_reason}" if batch.lane.paused_at else ""


def _is_creating(account_id: int) -> bool:
    """Tell whether a creation is under way, or in doubt: where batches have no names, one at a time."""
    unknown = Batch.objects.filter(
        lane__account_id=account_id,
        state__in=(BatchState.SUBMITTING, BatchState.CANCELLING),
        provider_batch_id="",
    )
    return unknown.exists()


def _start(seen: Batch, now: datetime) -> Batch | None:
    """Write the intent to create a batch; None when it was cancelled, paused or claimed just now."""
    # Locked, so that nobody cancels it between the decision and the intent.
    rows = Batch.objects.select_for_update(skip_locked=True, of=("self",))
    rows = rows.due(now, *_WAITING).filter(pk=seen.pk, fence=seen.fence, paused_at__isnull=True)
    batch = rows.select_related("lane").first()
    if batch is None:
        return None
    batch.lane = seen.lane
    batch.fence += 1
    batch.save(update_fields=["fence"])
    return move(
        batch,
        "submit",
        reason="there is room at the provider",
        by=_ADMISSION,
        now=now,
        create_started_at=now,
        lost_creates=batch.lost_creates + 1,  # until its worker says what came of it
        doubtful_since=None,
        next_attempt_at=now + CREATE_LEASE,
        wait_reason="",
    )


def _count_overtaken(started: Batch, line: list[Batch], look: _Look) -> None:
    """Note who was overtaken: who had no room, and in each lane the eldest that came before it.

    Of those with a lower priority only the eldest counts: in its turn it goes, and then the next one
    begins to count, so a flood of urgent batches slows the others down and stops none of them.
    """
    overtaken = {batch.pk for batch, no_room in look.passed if no_room.concerns(started)}
    eldest: dict[int, Batch] = {}
    for batch in sorted(line, key=lambda b: (b.rank, b.pk)):
        if not _held(batch):
            eldest.setdefault(batch.lane_id, batch)
    started_at = (started.rank, started.pk)
    overtaken |= {b.pk for b in eldest.values() if (b.rank, b.pk) < started_at}
    waiting = Batch.objects.filter(pk__in=overtaken - {started.pk}, state__in=_WAITING)
    waiting.update(overtaken=F("overtaken") + 1)


def _tell(line: Iterable[Batch], refused: dict[int, str], now: datetime) -> None:
    """Write down why each batch waits; the same words for many are one statement."""
    told: dict[int, int] = {}
    changed: dict[str, list[int]] = {}
    for batch in line:
        reason = refused.get(batch.pk, "")
        told[batch.lane_id] = told.get(batch.lane_id, 0) + 1
        if told[batch.lane_id] > _TOLD_EACH and not batch.paused_at:
            reason = _BEHIND
        if batch.state == BatchState.UPLOADED and reason:
            _begin_to_wait(batch, reason, now)
        elif reason and reason != batch.wait_reason:
            changed.setdefault(reason[:300], []).append(batch.pk)
    for reason, pks in changed.items():
        waiting = Batch.objects.filter(pk__in=pks, state=BatchState.WAITING_FOR_CAPACITY)
        waiting.update(wait_reason=reason)


def _begin_to_wait(batch: Batch, reason: str, now: datetime) -> None:
    """Move a batch whose file is ready to waiting, unless someone moved it meanwhile."""
    try:
        move(
            batch,
            "wait",
            reason=reason,
            by=_ADMISSION,
            now=now,
            wait_reason=reason[:300],
            waiting_since=batch.waiting_since or now,
            next_attempt_at=now,
        )
    except Stale:
        logger.info("batch moved meanwhile", extra={"batch": batch.key})
