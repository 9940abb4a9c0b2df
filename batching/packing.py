"""Pending requests go into the building batch of their lane, and the batch is sealed.

Set-based: one statement takes as many requests, in order of priority and age, as fit by count, bytes
and tokens; those with a near deadline come first. A batch is sealed when the next request does not fit, when
its earliest ``seal_by`` has come or its nearest deadline asks for it, or when someone asks (steering). Called by the clock; intake never waits for it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count, Exists, Max, Min, OuterRef, Sum

from batching import capacity, endings, turnaround
from batching.history import log_first_state
from batching.lifecycle import CLOCK, Actor, BatchState, RequestState, move
from batching.limits import BatchLimits, batch_limits
from batching.models import Batch, Lane, Request
from batching.overrides import effective
from batching.staging import sql_value

logger = logging.getLogger(__name__)

_PACKER = Actor(name="packing")


def pack(now: datetime) -> int:
    """Put every unpacked request into a batch and seal what is full or old; return batches sealed."""
    waiting = Request.objects.unpacked().filter(lane=OuterRef("pk"))
    lanes = Lane.objects.filter(Exists(waiting)).select_related("account")
    sealed = sum(_pack_lane(lane, now) for lane in lanes)
    return sealed + _seal_old(now)


def _pack_lane(lane: Lane, now: datetime) -> int:
    """Pack one lane; what goes wrong in it stops no other, and is tried again at the next tick."""
    sealed, more = 0, True
    try:
        while more:
            was_sealed, more = _fill_building(lane, now)
            sealed += was_sealed
    except Exception:
        logger.exception("packing failed", extra={"lane": lane.pk})
    return sealed


def _fill_building(lane: Lane, now: datetime) -> tuple[bool, bool]:
    """Fill the lane's building batch; tell whether it was sealed, and whether more can be packed."""
    with transaction.atomic():
        # One packer a lane. Not FOR UPDATE, which intake's foreign keys would wait for.
        Lane.objects.select_for_update(no_key=True).get(pk=lane.pk)
        if not Request.objects.unpacked().filter(lane=lane).exists():
            return False, False  # another packer was first; no batch is opened for nothing
        batch = _building(lane, now)
        full = batch_limits(lane)
        limits = _narrowed(full, lane)
        near = _take_near(batch, limits, now)
        taken, more = _take_all(batch, limits)
        if batch.request_count == 0 and more:  # the first one is larger than we like, and allowed
            taken, more = _take_all(batch, full)
        if batch.request_count == 0:
            return False, more and _drop_misfit(lane, now)
        if more or batch.request_count >= limits.max_requests:
            reason = _full(batch, limits)
            move(batch, "seal", reason=reason, by=_PACKER, now=now, next_attempt_at=now)
            return True, more
    if near + taken:
        logger.info("requests packed", extra={"batch": batch.key, "requests": near + taken})
    return False, False


def _narrowed(limits: BatchLimits, lane: Lane) -> BatchLimits:
    """Return the limits with the room that the lane's estimates leave, by what its answers really took."""
    margin = 1 + effective("BATCHER_TOKEN_MARGIN_PERCENT") / 100
    factor = capacity.packing_factor(lane, margin)
    return replace(limits, max_tokens=int(limits.max_tokens / factor))


def _building(lane: Lane, now: datetime) -> Batch:
    """Return the lane's building batch, locked; a new one when there is none.

    Call inside atomic, with the lane locked.
    """
    open_ones = Batch.objects.select_for_update().filter(lane=lane, state=BatchState.BUILDING)
    batch = open_ones.first()
    if batch is None:
        batch = Batch.objects.create(lane=lane, created_at=now, next_attempt_at=None)
        born = f"SELECT id, state FROM {Batch._meta.db_table} WHERE id = %s"  # noqa: S608
        log_first_state(born, [batch.pk], model=Batch, by=_PACKER, reason="opened", now=now)
    return batch


def _take_near(batch: Batch, limits: BatchLimits, now: datetime) -> int:
    """Take requests with a near deadline before all others; return how many."""
    until = turnaround.expected(batch.lane_id).near_until(now)
    near = Request.objects.unpacked().filter(lane=batch.lane_id, deliver_by__lte=until)
    if not near.exists():
        return 0
    taken = _take(batch, limits, until)
    recount(batch)
    return taken


def _take_all(batch: Batch, limits: BatchLimits) -> tuple[int, bool]:
    """Take until nothing waits or nothing fits; return how many, and whether some wait in vain.

    A request that came in while the statement ran was not seen by it: that it still waits does not
    say that it does not fit, so it is asked for once more.
    """
    taken = 0
    while True:
        waits = Request.objects.unpacked().filter(lane=batch.lane_id).exists()
        now_taken = _take(batch, limits) if waits else 0
        recount(batch)
        taken += now_taken
        if not now_taken:
            return taken, waits


_TAKE = """
    UPDATE {request} SET batch_id = %s WHERE id IN (
        WITH candidate AS (
            SELECT id, priority, size_bytes, token_estimate FROM {request}
            WHERE lane_id = %s AND state = 'pending' AND batch_id IS NULL {near}
            ORDER BY priority DESC, id LIMIT %s {lock}
        ), running AS (
            SELECT id,
                SUM(size_bytes) OVER so_far AS bytes,
                SUM(token_estimate) OVER so_far AS tokens
            FROM candidate
            WINDOW so_far AS (ORDER BY priority DESC, id ROWS UNBOUNDED PRECEDING)
        )
        SELECT id FROM running WHERE bytes <= %s AND tokens <= %s
    )
"""


def _take(batch: Batch, limits: BatchLimits, deliver_by: datetime | None = None) -> int:
    """Take what fits into the batch, in one statement; return how many requests.

    Only those that are wanted by ``deliver_by``, if it is given.
    """
    room = limits.max_requests - batch.request_count
    if room <= 0:
        return 0
    lock = "FOR UPDATE" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE.format(
                request=Request._meta.db_table,
                lock=lock,
                near="AND deliver_by <= %s" if deliver_by else "",
            ),
            [
                batch.pk,
                batch.lane_id,
                *([sql_value(deliver_by)] if deliver_by else []),
                room,
                limits.max_bytes - batch.size_bytes,
                limits.max_tokens - batch.token_estimate,
            ],
        )
        return int(cursor.rowcount)


def recount(batch: Batch) -> None:
    """Count what the batch holds from its pending requests, and save it."""
    held = batch.requests.filter(state="pending").aggregate(
        count=Count("pk"),
        size=Sum("size_bytes", default=0),
        tokens=Sum("token_estimate", default=0),
        first=Min("seal_by"),
        deliver_by=Min("deliver_by"),
        priority=Max("priority", default=0),
    )
    batch.request_count, batch.size_bytes = held["count"], held["size"]
    batch.token_estimate, batch.seal_by = held["tokens"], held["first"]
    batch.deliver_by = held["deliver_by"]
    if batch.deliver_by is not None:
        asked = turnaround.expected(batch.lane_id).seal_by(batch.deliver_by, batch.created_at)
        batch.seal_by = min(held["first"], asked)
    if not batch.is_priority_set:
        batch.priority = held["priority"]
    counted = ["request_count", "size_bytes", "token_estimate", "seal_by", "priority"]
    counted.append("deliver_by")
    batch.save(update_fields=counted)


def _full(batch: Batch, limits: BatchLimits) -> str:
    if batch.request_count >= limits.max_requests:
        return f"full: {batch.request_count:,} requests"
    return (
        f"full: the next request does not fit beside {batch.size_bytes:,} of {limits.max_bytes:,}"
        f" bytes, {batch.token_estimate:,} of {limits.max_tokens:,} tokens"
    )


def _drop_misfit(lane: Lane, now: datetime) -> bool:
    """Fail the request at the head of a lane that fits no batch any more (a limit was lowered)."""
    first = Request.objects.unpacked().filter(lane=lane).order_by("-priority", "pk")[:1]
    message = "larger than any batch of its lane may be, since the lane's limits were lowered"
    return bool(
        endings.end(
            Request.objects.filter(pk__in=list(first.values_list("pk", flat=True))),
            "fail",
            code="too_large",
            message=message,
            now=now,
            by=_PACKER,
        )
    )


def _seal_old(now: datetime) -> int:
    old = Batch.objects.filter(state=BatchState.BUILDING, seal_by__lte=now)
    return sum(seal(pk, reason=_why_old(pk), now=now) for pk in old.values_list("pk", flat=True))


def _why_old(batch_id: int) -> str:
    """Say whether its requests have waited long enough, or a deadline is near."""
    held = Request.objects.filter(batch=batch_id, state=RequestState.PENDING)
    first = held.aggregate(first=Min("seal_by"), deliver_by=Min("deliver_by"))
    batch = Batch.objects.get(pk=batch_id)
    if first["first"] and batch.seal_by and batch.seal_by < first["first"]:
        return f"its nearest deadline, {first['deliver_by']:%H:%M} UTC, asks for it"
    return "old enough"


def seal(batch_id: int, *, reason: str, now: datetime, by: Actor = CLOCK) -> bool:
    """Seal one building batch; an empty one is dropped. False when it is no longer building."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update().filter(pk=batch_id, state="building").first()
        if batch is None:
            return False
        recount(batch)
        if batch.request_count == 0:
            move(batch, "cancel", reason="no request left in it", by=by, now=now)
            return False
        move(batch, "seal", reason=reason, by=by, now=now, next_attempt_at=now)
    logger.info("batch sealed", extra={"batch": batch.key, "requests": batch.request_count})
    return True
