"""How much fits: into one line, one batch, one lane.

The provider's own limits, narrowed by the account's, and the enqueued tokens that a lane may hold at
the provider: the operator's figure for the lane, else for the account, else a table of models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from batching.models import Account, Lane, TokenLimit
from batching.providers.registry import limits_for

# OpenAI's enqueued prompt tokens per model at the lowest tier, by longest prefix. A higher tier has
# more: the operator sets the account's or the lane's figure.
_ENQUEUED_TOKENS = {
    "gpt-4o-mini": 2_000_000,
    "gpt-4o": 90_000,
    "gpt-4.1": 900_000,
    "gpt-4.1-mini": 2_000_000,
    "gpt-4.1-nano": 2_000_000,
    "gpt-5": 1_500_000,
    "gpt-5-mini": 5_000_000,
    "gpt-5-nano": 2_000_000,
    "o3": 90_000,
    "text-embedding-3-": 3_000_000,
    "omni-moderation": 2_000_000,
    # Anthropic limits the requests in its queue (200,000 at the lowest tier, 2026), not their tokens.
    "claude": 2_000_000_000,
}
_ENQUEUED_TOKENS_ELSE = 250_000
_LINE_OVERHEAD = 96
"""Bytes of an input line around its endpoint and body, rounded up."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one batch of a lane may hold."""

    max_requests: int
    max_bytes: int
    max_tokens: int
    max_line_bytes: int
    endpoints: frozenset[str]


def batch_limits(lane: Lane) -> BatchLimits:
    """Return the limits of one batch of ``lane``."""
    account = lane.account
    provider = limits_for(account.kind)
    return BatchLimits(
        max_requests=min(provider.max_requests, account.max_requests or provider.max_requests),
        max_bytes=min(provider.max_bytes, account.max_bytes or provider.max_bytes),
        max_tokens=token_limit(lane),
        max_line_bytes=provider.max_line_bytes,
        endpoints=provider.endpoints,
    )


@dataclass(frozen=True, kw_only=True)
class FlightLimits:
    """What an account may have at its provider at once; None: as much as it likes."""

    requests_in_flight: int | None
    creates_per_hour: int | None


def flight_limits(account: Account) -> FlightLimits:
    """Return the operator's figures for the account, else its provider's."""
    provider = limits_for(account.kind)
    return FlightLimits(
        requests_in_flight=account.max_requests_in_flight or provider.max_requests_in_flight,
        creates_per_hour=account.max_creates_per_hour or provider.max_creates_per_hour,
    )


def token_limit(lane: Lane) -> int:
    """Return how many tokens this lane may have enqueued at its provider."""
    return configured_tokens(lane)[0]


def configured_tokens(lane: Lane) -> tuple[int, str]:
    """Return the enqueued tokens of the lane's model, and who says so: lane, model, account or table.

    A figure for the model in this account comes before the account's own, one for all accounts after it.
    """
    if lane.token_limit:
        return lane.token_limit, "lane"
    account, name = lane.account, lane.model.lower()
    fitting = [row for row in account.model_limits if name.startswith(row.prefix)]
    if of_account := [row for row in fitting if row.account_id]:
        return _longest(of_account).tokens, "model"
    if account.token_limit:
        return account.token_limit, "account"
    return (_longest(fitting).tokens, "model") if fitting else (model_token_limit(name), "table")


def read_model_limits(lanes: Iterable[Lane]) -> None:
    """Read the figures for models once for all of these lanes, instead of once for each account."""
    rows = list(TokenLimit.objects.all())
    for lane in lanes:
        lane.account.model_limits = [r for r in rows if r.account_id in (None, lane.account_id)]


def _longest(rows: list[TokenLimit]) -> TokenLimit:
    return max(rows, key=lambda row: len(row.prefix))


def model_token_limit(model: str) -> int:
    """Return the table's figure for a model, by its longest known prefix."""
    name = model.lower()
    known = [prefix for prefix in _ENQUEUED_TOKENS if name.startswith(prefix)]
    return _ENQUEUED_TOKENS[max(known, key=len)] if known else _ENQUEUED_TOKENS_ELSE


def line_bytes(endpoint: str, body: bytes) -> int:
    """Return the size of a request's line in an input file, rounded up by a few bytes."""
    return len(body) + len(endpoint) + _LINE_OVERHEAD


def account_serves(account: Account, endpoint: str) -> bool:
    """Tell whether the account's provider takes this endpoint in batches."""
    return endpoint in limits_for(account.kind).endpoints
