"""How much an account may have at its provider, how much it has, and what its provider taught us.

Everything counts that the provider holds or may hold, a batch under submission included. The operator's
figures hold; where there are none, the provider's public ones do. Tokens are an estimate against a limit
that providers tell nobody: the estimate is narrowed by what answers really cost, the limit by refusals,
and widened again by clean runs. ``admission`` asks before each creation; ``collection`` and ``submission``
say how batches fared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import models, transaction
from django.db.models import Sum

from batching.lifecycle import Actor, BatchState
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
_NOTHING_LEARNED = Capacity()
_UNREAD = ("provider_object", "last_error")
"""Big columns that nobody here asks for."""


def tokens_of(batch: Batch) -> int:
    """Return the tokens that a batch will take up, as far as we know. Read ``lane__account`` of it."""
    return math.ceil(batch.token_estimate * factor_of(_learned(batch.lane)))


def packing_factor(lane: Lane, margin: float) -> float:
    """Return what to multiply estimates with when a batch is filled: as little of ``margin`` as was learned to be needed.

    ``margin`` (1.1: 10 %) is in the estimates; no more than that is taken out of them, for what is packed stays packed
    when later answers take more.
    """
    return max(factor_of(_learned(lane)), 1 / margin)


def holders(lane: Lane) -> BatchQuerySet:
    """Return the batches that take up the queue of the lane's account and model, other endpoints' too."""
    at_provider = Batch.objects.held_by_provider()
    return at_provider.filter(lane__account_id=lane.account_id, lane__model=lane.model)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why there is no room for a batch, and with whom it competes for it."""

    reason: str
    account: int | None = None
    model: str | None = None
    lane: int | None = None
    """What is full: the account, its queue for one model, or one lane; one of the three."""

    def concerns(self, batch: Batch) -> bool:
        """Tell whether ``batch`` would take of the same room. Read its ``lane``."""
        lane = batch.lane
        return (self.account, self.model, self.lane) in (
            (lane.account_id, None, None),
            (None, lane.model, None),
            (None, None, lane.pk),
        )


class Room:
    """What an account has at its provider, read once; it answers for any number of its batches.

    Make it under the account's lock, or two may take the same room.
    """

    def __init__(self, account: Account, now: datetime) -> None:
        self._account, self._limits = account, flight_limits(account)
        self._too_often = _too_often(account, self._limits.creates_per_hour, now)
        at_provider = Batch.objects.held_by_provider().filter(lane__account=account)
        held = list(at_provider.order_by("pk").select_related("lane").defer(*_UNREAD))
        self._batches, self._requests = len(held), sum(batch.request_count for batch in held)
        self._of_lane = Counter(batch.lane_id for batch in held)
        self._of_model: dict[str, list[Batch]] = {}
        for batch in held:
            self._of_model.setdefault(batch.lane.model, []).append(batch)
        self._learned = {row.model: row for row in Capacity.objects.filter(account=account)}

    def refusal(self, batch: Batch) -> Refusal | None:
        """Return why the provider has no room for the batch now; None when it has. Read its ``lane``.

        A batch that alone exceeds the limit goes when nothing else is there: the estimate may be wrong,
        and it would wait for ever.
        """
        if reason := self._lane_is_full(batch.lane):
            return Refusal(reason=reason, lane=batch.lane_id)
        if reason := self._account_is_full(batch):
            return Refusal(reason=reason, account=self._account.pk)
        if reason := self._tokens_are_taken(batch):
            return Refusal(reason=reason, model=batch.lane.model)
        return None

    def _lane_is_full(self, lane: Lane) -> str:
        most = lane.max_batches_in_flight
        if not most or self._of_lane[lane.pk] < most:
            return ""
        return f"its lane may have {most:,} batches at the provider, and has"

    def _account_is_full(self, batch: Batch) -> str:
        most = self._account.max_batches_in_flight
        if most and self._batches >= most:
            return f"its account may have {most:,} batches at the provider, and has"
        most = self._limits.requests_in_flight
        if most and self._batches and self._requests + batch.request_count > most:
            return (
                f"waiting for {batch.request_count:,} of {most:,} requests that its account may have at"
                f" the provider; {self._requests:,} are there"
            )
        return self._too_often

    def _tokens_are_taken(self, batch: Batch) -> str:
        lane = batch.lane
        learned = self._learned.get(lane.model) or _NOTHING_LEARNED
        there, factor = self._of_model.get(lane.model, []), factor_of(learned)
        taken = math.ceil(sum(held.token_estimate for held in there) * factor)
        wanted = math.ceil(batch.token_estimate * factor)
        limit = limit_of(lane, learned)
        if not there or taken + wanted <= limit:
            return ""
        return (
            f"waiting for {wanted:,} of {limit:,} enqueued tokens;"
            f" {taken:,} are held by {_named(there)}"
        )


def _named(batches: Sequence[Batch]) -> str:
    names = [str(batch.pk) for batch in batches[:3]]
    others = " and others" if len(batches) > len(names) else ""
    return f"batch{'es' if len(batches) > 1 else ''} {', '.join(names)}{others}"


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


def refused(batch: Batch, now: datetime) -> None:
    """Learn from a provider that said its token queue was full: it takes less than we thought.

    Call it before the batch leaves its state. What the other batches hold was taken, so it fits.
    """
    with transaction.atomic():
        learned = _learned(batch.lane, lock=True)
        if learned.is_frozen:
            return
        wanted = tokens_of(batch)
        there = holders(batch.lane).aggregate(tokens=Sum("token_estimate", default=0))["tokens"]
        others = max(0, math.ceil(there * factor_of(learned)) - wanted)
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
    sums = counted(batch).aggregate(
        estimated=Sum("request__token_estimate", default=0), real=Sum("input_tokens", default=0)
    )
    if learned.estimated_tokens > _REMEMBERED:
        learned.estimated_tokens //= 2
        learned.real_tokens //= 2
    learned.estimated_tokens += sums["estimated"]
    learned.real_tokens += sums["real"]


def counted(batch: Batch) -> models.QuerySet[Answer]:
    """Return the answers of the batch's requests whose input the provider counted.

    By its requests: answers have no index by batch, and are the largest table there is.
    """
    of_present_attempt = models.Q(attempt=models.F("request__attempt"))
    return Answer.objects.filter(
        of_present_attempt, request__batch=batch, input_tokens__isnull=False
    )


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


def limit_of(lane: Lane, learned: Capacity) -> int:
    """Return how many tokens the lane's account may have enqueued for its model. Read ``account``.

    The operator's figure is a ceiling; the table's is a guess, which learning may exceed.
    """
    configured, source = configured_tokens(lane)
    if learned.learned_tokens is None:
        return configured
    return learned.learned_tokens if source == "table" else min(learned.learned_tokens, configured)


def freeze(lane: Lane, *, by: Actor, reason: str, now: datetime) -> None:
    """Keep what was learned of the lane's account and model, and learn no more."""
    _freeze(lane, is_frozen=True)


def unfreeze(lane: Lane, *, by: Actor, reason: str, now: datetime) -> None:
    """Go on learning from what batches take and what the provider refuses."""
    _freeze(lane, is_frozen=False)


def _freeze(lane: Lane, *, is_frozen: bool) -> None:
    with transaction.atomic():
        learned = _learned(lane, lock=True)
        learned.is_frozen = is_frozen
        learned.save(update_fields=["is_frozen"])


def _learned(lane: Lane, *, lock: bool = False) -> Capacity:
    """Return what was learned, or a row not yet stored; with ``lock``, stored and locked."""
    found = Capacity.objects.filter(account_id=lane.account_id, model=lane.model)
    if not lock:
        return found.first() or Capacity(account_id=lane.account_id, model=lane.model)
    Capacity.objects.get_or_create(account_id=lane.account_id, model=lane.model)
    return found.select_for_update().get()


def ratio_of(learned: Capacity) -> float | None:
    """Return the real tokens for each estimated one; None: too few answers so far."""
    if learned.estimated_tokens < _ENOUGH_TO_LEARN or not learned.real_tokens:
        return None
    return learned.real_tokens / learned.estimated_tokens


def factor_of(learned: Capacity) -> float:
    """Return what to multiply an estimate with: the learned ratio and a little safety."""
    ratio = ratio_of(learned)
    return 1.0 if ratio is None else min(max(ratio * _SAFETY, _NARROWEST), _WIDEST)
