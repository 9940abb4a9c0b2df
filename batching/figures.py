"""How full lanes are, for people: what is configured, what was learned, what is used, who holds it.

Read by the API and the admin; ``capacity`` decides by the same rules. Any number of lanes costs the same few
queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from batching import order, turnaround
from batching.capacity import factor_of, holders, limit_of, ratio_of
from batching.limits import configured_tokens, flight_limits, read_model_limits
from batching.models import Batch, Capacity, Lane
from batching.models.batches import IN_LINE, PROVIDER_HOLDS

_HOUR = timedelta(hours=1)
_MOST_LOOKED_AT = 1_000


@dataclass(frozen=True, kw_only=True)
class Use:
    """How much of something is used; a limit of None: as much as it likes."""

    used: int
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The enqueued tokens of the lane's account and model, all endpoints together."""

    used: int
    """Estimated, and narrowed by what was learned."""
    limit: int
    """What holds now."""
    source: str
    """Who says so: ``lane``, ``model``, ``account``, ``table`` or ``learned``."""
    configured: int
    """What the operator, else the table of models says."""
    learned: int | None
    """What refusals and clean runs taught; None: nothing yet."""
    refused: int | None
    """How many the provider refused last time, all batches together."""
    refused_at: datetime | None
    ratio: float | None
    """Real tokens for each estimated one; None: too few answers so far."""
    is_frozen: bool
    """Nothing more is learned."""


@dataclass(frozen=True, kw_only=True)
class Takes:
    """How long batches of the lane took lately, from their creation until their results were here."""

    p50_s: int
    """Half of them were back by then."""
    p90_s: int
    batches: int
    """How many it was learned from."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one lane has at its provider, and may have."""

    tokens: Tokens
    lane_batches: Use
    """Batches of the lane at the provider."""
    batches: Use
    """Batches of the whole account at the provider."""
    requests: Use
    """Requests of the whole account at the provider."""
    creates: Use
    """Batches that the account created within the last hour."""
    waiting: int
    """Batches in line."""
    waiting_tokens: int
    """Estimated, of those."""
    oldest_waiting_at: datetime | None
    """Since when the longest of them waits; None: none does."""
    takes: Takes | None
    """None: too few have ended."""


def figures(lanes: Sequence[Lane], now: datetime) -> dict[int, Figures]:
    """Return the figures of lanes by their numbers. Read ``account`` of each."""
    accounts = {lane.account_id for lane in lanes}
    read_model_limits(lanes)
    batches = Batch.objects.filter(lane__account__in=accounts)
    held = _sums(batches.filter(state__in=(*PROVIDER_HOLDS, *IN_LINE)))
    learned = {(c.account_id, c.model): c for c in Capacity.objects.filter(account__in=accounts)}
    created = _counts(batches.filter(create_started_at__gt=now - _HOUR), "lane__account")
    turnarounds = turnaround.expected_of(lane.pk for lane in lanes)
    found = {}
    for lane in lanes:
        limits, account = flight_limits(lane.account), lane.account
        ours = _Held(rows=[row for row in held if row["lane__account"] == lane.account_id])
        taught = learned.get((account.pk, lane.model))
        found[lane.pk] = Figures(
            tokens=_tokens(lane, ours, taught or Capacity(account_id=account.pk, model=lane.model)),
            lane_batches=Use(
                used=ours.total("held", lane=lane.pk), limit=lane.max_batches_in_flight
            ),
            batches=Use(used=ours.total("held"), limit=account.max_batches_in_flight),
            requests=Use(used=ours.total("lines"), limit=limits.requests_in_flight),
            creates=Use(used=created.get(account.pk, 0), limit=limits.creates_per_hour),
            waiting=ours.total("in_line", lane=lane.pk),
            waiting_tokens=ours.total("line_estimate", lane=lane.pk),
            oldest_waiting_at=ours.oldest(lane.pk),
            takes=_takes(turnarounds.get(lane.pk)),
        )
    return found


def rounds(batch: Batch) -> int:
    """Return how often its model's queue has to empty until a batch in line is done, itself counted: a guess.

    Those before it in its lane count, and what the provider holds; other lanes of the model do not. Reads
    ``lane__account``.
    """
    lane = batch.lane
    learned = Capacity.objects.filter(account=lane.account_id, model=lane.model).first()
    learned = learned or Capacity(account_id=lane.account_id, model=lane.model)
    held: int = holders(lane).aggregate(tokens=Sum("token_estimate", default=0))["tokens"]
    tokens = held + batch.token_estimate
    line = order.line_of(lane).values_list("pk", "token_estimate")
    for pk, estimate in line[:_MOST_LOOKED_AT]:
        if pk == batch.pk:
            break
        tokens += estimate
    return max(1, math.ceil(tokens * factor_of(learned) / limit_of(lane, learned)))


def _takes(learned: turnaround.Expected | None) -> Takes | None:
    if learned is None:
        return None
    p50_s, p90_s = (int(span.total_seconds()) for span in (learned.p50, learned.p90))
    return Takes(p50_s=p50_s, p90_s=p90_s, batches=learned.batches)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What the provider holds of one account and what waits, a row for each of its lanes."""

    rows: list[dict[str, Any]]

    def total(self, what: str, **which: object) -> int:
        """Add up a column of those rows that have these values."""
        chosen = (r for r in self.rows if all(r[name] == v for name, v in which.items()))
        return sum(row[what] for row in chosen)

    def oldest(self, lane: int) -> datetime | None:
        """Return since when somebody waits in a lane."""
        found = [row["oldest"] for row in self.rows if row["lane"] == lane]
        return found[0] if found else None


def _sums(batches: QuerySet[Batch]) -> list[dict[str, Any]]:
    grouped = batches.order_by().values("lane", "lane__account", "lane__model")
    is_held = Q(state__in=PROVIDER_HOLDS)
    sums = grouped.annotate(
        in_line=Count("pk", filter=~is_held),
        line_estimate=Sum("token_estimate", filter=~is_held, default=0),
        oldest=Min(Coalesce("waiting_since", "created_at"), filter=~is_held),
        held=Count("pk", filter=is_held),
        lines=Sum("request_count", filter=is_held, default=0),
        estimate=Sum("token_estimate", filter=is_held, default=0),
    )
    return [dict(row) for row in sums]


def _counts(batches: QuerySet[Batch], by: str) -> Mapping[int, int]:
    return dict(batches.order_by().values_list(by).annotate(count=Count("pk")))


def _tokens(lane: Lane, ours: _Held, learned: Capacity) -> Tokens:
    configured, source = configured_tokens(lane)
    limit = limit_of(lane, learned)
    estimate = ours.total("estimate", lane__model=lane.model)
    return Tokens(
        used=math.ceil(estimate * factor_of(learned)),
        limit=limit,
        source=source if limit == configured else "learned",
        configured=configured,
        learned=learned.learned_tokens,
        refused=learned.refused_tokens,
        refused_at=learned.refused_at,
        ratio=ratio_of(learned),
        is_frozen=learned.is_frozen,
    )
