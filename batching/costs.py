"""What tokens cost: the price table of the library genai-prices (MIT), which comes with it and is read offline.

Money is whole nano-dollars (10⁻⁹ US$), so that the smallest answer counts and sums are exact; whoever shows it
calls `dollars`. A price that nobody knows is None, never zero. Only tokens are counted: searches and other
tools that a provider bills by the piece are not. A sandbox is priced as what it stands in for, so that costs
can be seen before a real key is used. Called by settling and direct answers; reads no database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from batching.providers.base import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

    from batching.models import Lane

NANO: Final = 10**9
_ENDPOINTS: Final = frozenset(
    {"/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages"}
)
"""Those whose usage is told in tokens of text; the others' is not the whole bill."""
_HALF_IN_BATCHES: Final = frozenset({"openai", "anthropic"})
"""Providers that say so of every model (OpenAI's and Anthropic's batch guides, 2026); of others the table knows."""
_PROVIDERS: Final = {
    "anthropic": "anthropic",
    "sandbox": "openai",
    "sandbox-anthropic": "anthropic",
}
"""Kind of account → the table's provider; that of other kinds is known by the base URL."""
_PARTS: Final = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cache_read_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "cache_write_1h_mtok": "cache_write_1h_tokens",
    "output_mtok": "output_tokens",
}
"""The table's prices, in dollars for a million tokens, and what the library calls these tokens."""


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """Whose price holds: a model at a provider on a day, in a batch or not."""

    kind: str
    base_url: str
    model: str
    endpoint: str
    day: date
    is_batch: bool


def tariff(lane: Lane, at: datetime, *, is_batch: bool = True) -> Tariff:
    """Return the tariff of a lane's requests sent at ``at``. Reads ``account`` of it."""
    return Tariff(
        kind=lane.account.kind,
        base_url=lane.account.base_url,
        model=lane.model,
        endpoint=lane.endpoint,
        day=at.astimezone(UTC).date(),
        is_batch=is_batch,
    )


def price(usage: Usage | None, by: Tariff) -> int | None:
    """Return what an answer costs, in nano-dollars; None when its usage or its model's price is unknown."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    rates = _rates(by)
    if rates is None:
        return None
    used = _tokens(usage)
    if used["input_tokens"] > rates.base_until:
        return rates.exactly(used)
    return rates.quickly(used)


def dollars(nano: int | None) -> str | None:
    """Return an amount of nano-dollars in US$, in plain decimals: ``0.000375``, never a float."""
    if nano is None:
        return None
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _tokens(usage: Usage) -> dict[str, int]:
    """Return the tokens in the library's words: what came from or went to a cache is part of the input."""
    written, written_long = usage.written_tokens or 0, usage.written_long_tokens or 0
    read = usage.cached_tokens or 0
    return {
        "input_tokens": max(usage.input_tokens or 0, read + written),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": min(written_long, written),
        "output_tokens": usage.output_tokens or 0,
    }


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """A model's prices: the library takes 0.3 ms for an answer, which is minutes for a million of them."""

    of: ModelPrice
    prices: dict[str, Decimal]
    """In dollars for a million tokens, up to ``base_until`` input tokens; a missing one is the input's."""
    base_until: int
    share: Decimal

    def quickly(self, used: dict[str, int]) -> int:
        """Price an answer by multiplication."""
        plain = self.prices.get("input_mtok", Decimal(0))
        read, written = used["cache_read_tokens"], used["cache_write_tokens"]
        written_long = used["cache_write_1h_tokens"]
        short = self.prices.get("cache_write_mtok", plain)
        amount = (
            plain * (used["input_tokens"] - read - written)
            + self.prices.get("cache_read_mtok", plain) * read
            + short * (written - written_long)
            + self.prices.get("cache_write_1h_mtok", short) * written_long
            + self.prices.get("output_mtok", Decimal(0)) * used["output_tokens"]
        )
        return _rounded(amount * self.share * 1000)

    def exactly(self, used: dict[str, int]) -> int:
        """Price an answer by the library: long inputs may cost more a token."""
        from genai_prices import Usage as Used

        return _rounded(self.of.calc_price(Used(**used))["total_price"] * self.share * NANO)


def _rounded(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_HALF_UP))


@lru_cache(maxsize=1_000)
def _rates(by: Tariff) -> _Rates | None:
    if by.endpoint not in _ENDPOINTS:
        return None
    standard = _looked_up(by, {})
    if standard is None:
        return None
    found, provider = standard
    share = Decimal(1)
    if by.is_batch:
        batched = _looked_up(by, {"processing": "batch"}) or standard
        if batched[0] == found and provider in _HALF_IN_BATCHES:
            share = Decimal(
                "0.5"
            )  # the table has no price for this model in batches, or not for that day
        found = batched[0]
    given = {part: getattr(found, part) for part in _PARTS}
    tiers = [tier.start for value in given.values() if value for tier in _tiers(value)]
    prices = {
        part: getattr(value, "base", value) for part, value in given.items() if value is not None
    }
    return _Rates(of=found, prices=prices, base_until=min(tiers, default=2**62), share=share)


def _tiers(value: Any) -> list[Any]:
    return list(getattr(value, "tiers", ()))


def _looked_up(by: Tariff, context: dict[str, str]) -> tuple[ModelPrice, str] | None:
    """Return a model's prices and the table's name for its provider; None when it knows either not.

    Imported here: the table takes 40 MB and a second, and only processes that settle answers need it.
    """
    from genai_prices import Usage as Used
    from genai_prices import calc_price

    known = _PROVIDERS.get(by.kind)
    whose: dict[str, Any] = {"provider_id": known} if known else {"provider_api_url": by.base_url}
    noon = datetime.combine(by.day, time(12), tzinfo=UTC)
    nothing = Used(input_tokens=0, output_tokens=0)
    try:
        found = calc_price(
            nothing, by.model, genai_request_timestamp=noon, price_context=context, **whose
        )
    except LookupError:
        return None
    return found.model_price, found.provider.id
