"""What a person may do to the order and the flow: move, promote, pause and resume.

A batch is paused by a mark beside its state, so it keeps its place, and one that the provider holds runs to
its end. Lanes and accounts are paused alike. Called by the API and the admin, which write who and why into
the audit log; each raises Refused when it can't be done.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from django.db import transaction
from django.db.models import QuerySet

from batching import order
from batching.history import log_deed
from batching.lifecycle import Actor, BatchState
from batching.models import Account, Batch, Lane
from batching.models.batches import IN_LINE
from batching.steering import Refused

PRIORITIES = range(-100, 101)
PAUSABLE = (*order.MOVABLE, BatchState.SUBMITTING, BatchState.PROCESSING)
_WAITING = (BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY)
_LOOKED_AT_SOON = "it is looked at within seconds"

Paused = TypeVar("Paused", Batch, Lane, Account)


def pause(batch: Batch, *, by: Actor, reason: str, now: datetime) -> None:
    """Keep a batch from being started; it keeps its place. The provider finishes what it holds."""
    with transaction.atomic():
        row = _locked(batch, PAUSABLE, "paused")
        _mark(row, by, reason, now)
        log_deed(row, "paused", reason=reason, by=by, now=now)
        if row.state in _WAITING:
            _say(row, f"paused: {row.pause_reason}")
    batch.refresh_from_db()


def resume(batch: Batch, *, by: Actor, reason: str, now: datetime) -> None:
    """Let a paused batch go again, from the place that it kept."""
    with transaction.atomic():
        row = _locked(batch, tuple(BatchState), "resumed")
        _unmark(row)
        log_deed(row, "resumed", reason=reason, by=by, now=now)
        if row.state in _WAITING:
            _say(row, _LOOKED_AT_SOON)
    batch.refresh_from_db()


def pause_lane(lane: Lane, *, by: Actor, reason: str, now: datetime) -> None:
    """Start no batch of a lane. Once it returns, none is started; the provider finishes what it holds."""
    with transaction.atomic():
        _lock_admission(lane.account_id)
        _mark(Lane.objects.select_for_update(no_key=True).get(pk=lane.pk), by, reason, now)
    lane.refresh_from_db()


def resume_lane(lane: Lane, *, by: Actor, reason: str, now: datetime) -> None:
    """Start batches of a lane again."""
    with transaction.atomic():
        _unmark(Lane.objects.select_for_update(no_key=True).get(pk=lane.pk))
    lane.refresh_from_db()


def pause_account(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Start no batch through an account. Its requests are taken and packed, and its batches are polled."""
    with transaction.atomic():
        _mark(_lock_admission(account.pk), by, reason, now)
    account.refresh_from_db()


def resume_account(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Start batches through an account again."""
    with transaction.atomic():
        _unmark(_lock_admission(account.pk))
    account.refresh_from_db()


def move_to_top(batch: Batch, *, by: Actor, reason: str, now: datetime) -> None:
    """Put a batch before all others of its lane, with the priority of the first when its own is lower."""
    with transaction.atomic():
        row = _to_move(batch)
        first = _others(row).first()
        if first is not None and row.priority <= first.priority:
            _place(row, priority=first.priority, rank=order.rank_before(first))
        log_deed(row, "moved", reason=_told("to the top", reason), by=by, now=now)
    batch.refresh_from_db()


def move_to_bottom(batch: Batch, *, by: Actor, reason: str, now: datetime) -> None:
    """Put a batch behind all others of its lane, with the priority of the last when its own is higher."""
    with transaction.atomic():
        row = _to_move(batch)
        last = _others(row).last()
        lowest = min(row.priority, last.priority) if last else row.priority
        row.promoted_at, row.overtaken = None, 0
        _place(row, priority=lowest, rank=order.rank_at_end(last))
        log_deed(row, "moved", reason=_told("to the bottom", reason), by=by, now=now)
    batch.refresh_from_db()


def move_before(batch: Batch, *, other: Batch, by: Actor, reason: str, now: datetime) -> None:
    """Put a batch right before another one of its lane, with that one's priority."""
    if other.pk == batch.pk:
        raise Refused("same_batch", "a batch can't be moved before itself")
    if other.lane_id != batch.lane_id:
        raise Refused("other_lane", "the two batches are in different lanes")
    with transaction.atomic():
        row = _to_move(batch)
        follower = _others(row).filter(pk=other.pk).first()
        if follower is None:
            raise Refused("not_in_line", f"batch {other.pk} no longer waits in its lane")
        row.promoted_at, row.overtaken = None, 0
        _place(row, priority=follower.priority, rank=order.rank_before(follower))
        log_deed(row, "moved", reason=_told(f"before batch {other.pk}", reason), by=by, now=now)
    batch.refresh_from_db()


def set_priority(batch: Batch, *, priority: int, by: Actor, reason: str, now: datetime) -> None:
    """Give a batch a priority: those with a higher one go first, whatever their age."""
    if priority not in PRIORITIES:
        raise Refused("invalid_priority", "priority must be a whole number from -100 to 100")
    with transaction.atomic():
        row = _to_move(batch)
        told = _told(f"priority {priority}, it was {row.priority}", reason)
        _place(row, priority=priority, rank=row.rank)
        log_deed(row, "prioritized", reason=told, by=by, now=now)
    batch.refresh_from_db()


def promote(batch: Batch, *, by: Actor, reason: str, now: datetime) -> None:
    """Let a batch go before all others as soon as there is room; a pause between tries ends now."""
    with transaction.atomic():
        row = _locked(batch, IN_LINE, "promoted")
        if row.paused_at:
            raise Refused("paused", "the batch is paused; resume it first")
        row.promoted_at = row.promoted_at or now
        if row.state in _WAITING:
            row.next_attempt_at = now
        row.save(update_fields=["promoted_at", "next_attempt_at"])
        log_deed(row, "promoted", reason=reason, by=by, now=now)
    batch.refresh_from_db()


def _mark(row: Paused, by: Actor, reason: str, now: datetime) -> None:
    if row.paused_at is not None:
        raise Refused("already_paused", f"already paused: {row.pause_reason}")
    who = f"user {by.name}" if by.user_id else by.name
    row.paused_at, row.pause_reason = now, f"by {who}: {reason}".removesuffix(": ")[:300]
    row.save(update_fields=["paused_at", "pause_reason"])


def _unmark(row: Paused) -> None:
    if row.paused_at is None:
        raise Refused("not_paused", "not paused")
    row.paused_at, row.pause_reason = None, ""
    row.save(update_fields=["paused_at", "pause_reason"])


def _told(what: str, reason: str) -> str:
    return f"{what}: {reason}".removesuffix(": ")


def _say(row: Batch, reason: str) -> None:
    row.wait_reason = reason[:300]
    row.save(update_fields=["wait_reason"])


def _lock_admission(account_id: int) -> Account:
    """Lock an account as admission does: what it is deciding is decided, and nothing more. Inside atomic."""
    return Account.objects.select_for_update(no_key=True).get(pk=account_id)


def _locked(batch: Batch, states: tuple[BatchState, ...], verb: str) -> Batch:
    """Return the batch as it is by now, locked. Refused in any other state. Inside atomic."""
    row = Batch.objects.select_for_update(no_key=True, of=("self",)).filter(pk=batch.pk).first()
    if row is None or row.state not in states:
        now_it_is = row.state if row else "gone"
        raise Refused("invalid_batch_state", f"a batch that is {now_it_is} can't be {verb}")
    return row


def _to_move(batch: Batch) -> Batch:
    """Return the batch, locked with its lane: two moves in a lane come one after the other."""
    Lane.objects.select_for_update(no_key=True).get(pk=batch.lane_id)
    return _locked(batch, order.MOVABLE, "moved")


def _others(row: Batch) -> QuerySet[Batch]:
    """Return what else waits in its lane, by priority and rank."""
    waiting = Batch.objects.filter(lane=row.lane_id, state__in=order.MOVABLE)
    return waiting.exclude(pk=row.pk).order_by("-priority", "rank", "pk")


def _place(row: Batch, *, priority: int, rank: int) -> None:
    row.is_priority_set |= priority != row.priority
    row.priority, row.rank = priority, rank
    row.save(update_fields=["priority", "is_priority_set", "rank", "promoted_at", "overtaken"])
