"""How much an account may have at its provider, how much it has, and what its provider taught us.

Everything counts that the provider holds or may hold, a batch under submission included. The operator's
figures hold; where there are none, the provider's public ones do. Tokens are an estimate against a limit
that providers tell nobody: the estimate is narrowed by what answers really cost, the limit by refusals,
and widened again by clean runs. ``admission`` asks before each creation; ``collection`` and ``submission``
say how batches fared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Sum

from batching.lifecycle import BatchState
from batching.limits import configured_tokens, flight_limits
from batching.models import Account, Answer, Batch, Capacity, Lane
from batching.models.batches import BatchQuerySet

_ENOUGH_TO_LEARN = 20_000
"""Estimated tokens of answered requests, before what they really took narrows the margin."""
_REMEMBERED = 20_000_000
_SAFETY = 1.05
_NARROWEST, _WIDEST = 0.25, 3.0
_SHRINK, _GROW, _CLEAN_RUNS = 0.8, 1.25, 3
_REFUSAL_REMEMBERED = timedelta(days=7)
_BELOW_REFUSAL = 0.95
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the provider holds, or may hold."""

    batches: int
    requests: int
    tokens: int
    """Estimated, and narrowed by what was learned."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A model's queue at its provider, in tokens: what fills it, and where its limit comes from."""

    held: Held
    limit: int
    source: str
    """``lane``, ``account``, ``table`` or ``learned``: who says so."""
    configured: int
    """What the operator, else the table of models says."""
    learned: int | None
    """What refusals and clean runs taught; None: nothing yet."""
    ratio: float | None
    """Real tokens for each estimated one; None: too few answers so far."""
    is_frozen: bool


def figures(lane: Lane) -> Figures:
    """Return how full the queue of the lane's account and model is."""
    learned = _learned(lane)
    configured, source = configured_tokens(lane)
    limit = _limit(learned, configured, is_operators=source != "table")
    return Figures(
        held=held(lane),
        limit=limit,
        source=source if limit == configured else "learned",
        configured=configured,
        learned=learned.learned_tokens,
        ratio=_ratio(learned),
        is_frozen=learned.is_frozen,
    )


def held(lane: Lane) -> Held:
    """Return what the provider holds of the lane's account and model."""
    return _held(
        Batch.objects.held_by_provider().filter(
            lane__account_id=lane.account_id, lane__model=lane.model
        ),
        _factor(_learned(lane)),
    )


def _held(batches: BatchQuerySet, factor: float) -> Held:
    totals = batches.aggregate(
        batches=Count("pk"),
        requests=Sum("request_count", default=0),
        tokens=Sum("token_estimate", default=0),
    )
    return Held(
        batches=totals["batches"],
        requests=totals["requests"],
        tokens=math.ceil(totals["tokens"] * factor),
    )


def tokens_of(batch: Batch) -> int:
    """Return the tokens that a batch will take up, as far as we know. Read ``lane__account`` of it."""
    return math.ceil(batch.token_estimate * _factor(_learned(batch.lane)))


def refusal(batch: Batch, now: datetime) -> str:
    """Return why the provider has no room for the batch now; empty when it has. Read ``lane__account``.

    A batch that alone exceeds the limit goes when nothing else is there: the estimate may be wrong, and it
    would wait for ever. Call it under the account's lock, or two may take the same room.
    """
    return _full(batch, now) or _no_tokens(batch)


def _full(batch: Batch, now: datetime) -> str:
    lane, account = batch.lane, batch.lane.account
    of_account = Batch.objects.held_by_provider().filter(lane__account=account)
    limits = flight_limits(account)
    of_lane = of_account.filter(lane=lane)
    if lane.max_batches_in_flight and of_lane.count() >= lane.max_batches_in_flight:
        return f"its lane may have {lane.max_batches_in_flight:,} batches at the provider, and has"
    everything = _held(of_account, 1.0)
    if account.max_batches_in_flight and everything.batches >= account.max_batches_in_flight:
        return f"its account may have {account.max_batches_in_flight:,} batches at the provider, and has"
    most = limits.requests_in_flight
    if most and everything.batches and everything.requests + batch.request_count > most:
        return (
            f"waiting for {batch.request_count:,} of {most:,} requests that its account may have at the"
            f" provider; {everything.requests:,} are there"
        )
    return _too_often(account, limits.creates_per_hour, now)


def _too_often(account: Account, most: int | None, now: datetime) -> str:
    if not most:
        return ""
    since = Batch.objects.filter(lane__account=account, create_started_at__gt=now - _HOUR)
    earlier = since.order_by("-create_started_at").values_list("create_started_at", flat=True)
    oldest = earlier[most - 1 : most].first()
    if oldest is None:
        return ""
    at = oldest + _HOUR
    return f"its account may create {most:,} batches an hour, and did; the next at {at:%H:%M} UTC"


def _no_tokens(batch: Batch) -> str:
    now_held = figures(batch.lane)
    wanted, taken = tokens_of(batch), now_held.held.tokens
    if not now_held.held.batches or taken + wanted <= now_held.limit:
        return ""
    others = Batch.objects.held_by_provider().filter(
        lane__account_id=batch.lane.account_id, lane__model=batch.lane.model
    )
    names = [str(pk) for pk in others.order_by("pk").values_list("pk", flat=True)[:4]]
    by = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    return (
        f"waiting for {wanted:,} of {now_held.limit:,} enqueued tokens;"
        f" {taken:,} are held by batch{'es' if len(names) > 1 else ''} {by}"
    )


def refused(batch: Batch, now: datetime) -> None:
    """Learn from a provider that said its token queue was full: it takes less than we thought.

    Call it before the batch leaves its state. What the other batches hold was taken, so it fits.
    """
    with transaction.atomic():
        learned = _learned(batch.lane, lock=True)
        if learned.is_frozen:
            return
        wanted = tokens_of(batch)
        others = max(0, held(batch.lane).tokens - wanted)
        learned.refused_tokens, learned.refused_at = others + wanted, now
        learned.learned_tokens = max(others, int((others + wanted) * _SHRINK), 1)
        learned.clean_runs = 0
        learned.save()


def completed(batch: Batch, now: datetime) -> None:
    """Learn from a batch that the provider finished: what its requests really took, and that it fitted."""
    with transaction.atomic():
        learned = _learned(batch.lane, lock=True)
        if learned.is_frozen:
            return
        _weigh(learned, batch)
        learned.clean_runs += 1
        if learned.clean_runs >= _CLEAN_RUNS:
            _grow(learned, batch.lane, now)
        learned.save()


def _weigh(learned: Capacity, batch: Batch) -> None:
    """Add what the provider counted for the batch; older figures lose weight as they pile up."""
    answered = Answer.objects.filter(batch=batch, input_tokens__isnull=False)
    sums = answered.aggregate(
        estimated=Sum("request__token_estimate", default=0), real=Sum("input_tokens", default=0)
    )
    if learned.estimated_tokens > _REMEMBERED:
        learned.estimated_tokens //= 2
        learned.real_tokens //= 2
    learned.estimated_tokens += sums["estimated"]
    learned.real_tokens += sums["real"]


def _grow(learned: Capacity, lane: Lane, now: datetime) -> None:
    """Try a little more, below what was refused lately and what the operator says.

    The table's figures are those of the lowest tier: when batches wait for room, more is tried.
    """
    configured, source = configured_tokens(lane)
    if learned.learned_tokens is None and (source != "table" or not _is_wanted(lane)):
        return
    so_far = learned.learned_tokens or configured
    grown = int(so_far * _GROW) + 1
    if learned.refused_at and now - learned.refused_at < _REFUSAL_REMEMBERED:
        grown = min(grown, int((learned.refused_tokens or grown) * _BELOW_REFUSAL))
    learned.clean_runs = 0
    learned.learned_tokens = max(so_far, grown)
    if learned.learned_tokens >= configured and source != "table":
        learned.learned_tokens = None  # the operator's figure holds again


def _is_wanted(lane: Lane) -> bool:
    waiting = Batch.objects.filter(state=BatchState.WAITING_FOR_CAPACITY)
    return waiting.filter(lane__account_id=lane.account_id, lane__model=lane.model).exists()


def _limit(learned: Capacity, configured: int, *, is_operators: bool) -> int:
    """The operator's figure is a ceiling; the table's is a guess, which learning may exceed."""
    if learned.learned_tokens is None:
        return configured
    return min(learned.learned_tokens, configured) if is_operators else learned.learned_tokens


def _learned(lane: Lane, *, lock: bool = False) -> Capacity:
    """Return what was learned, or a row not yet stored; with ``lock``, stored and locked."""
    found = Capacity.objects.filter(account_id=lane.account_id, model=lane.model)
    if not lock:
        return found.first() or Capacity(account_id=lane.account_id, model=lane.model)
    Capacity.objects.get_or_create(account_id=lane.account_id, model=lane.model)
    return found.select_for_update().get()


def _ratio(learned: Capacity) -> float | None:
    if learned.estimated_tokens < _ENOUGH_TO_LEARN or not learned.real_tokens:
        return None
    return learned.real_tokens / learned.estimated_tokens


def _factor(learned: Capacity) -> float:
    """Return what to multiply an estimate with: the learned ratio and a little safety."""
    ratio = _ratio(learned)
    return 1.0 if ratio is None else min(max(ratio * _SAFETY, _NARROWEST), _WIDEST)
