"""What an answer costs: by the table, in nano-dollars, half in batches; unknown is None and never zero."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as Used
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.costs import Tariff, dollars, price
from batching.providers.base import Usage

DAY = date(2026, 11, 21)
MILLION = 1_000_000
counts = st.integers(0, 3 * MILLION)


def tariff(model="gpt-4o-mini", **fields) -> Tariff:
    given_ = {
        "kind": "openai", "base_url": "https://api.openai.com/v1", "endpoint": "/v1/responses",
        "day": DAY, "is_batch": True,
    } | fields  # fmt: skip
    return Tariff(model=model, **given_)


def paid(by: Tariff, **tokens) -> Decimal:
    return Decimal(dollars(price(Usage(**tokens), by)))


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({}, "0.375"),
        ({"is_batch": False}, "0.75"),
        ({"model": "gpt-4o-mini-2024-07-18"}, "0.375"),
        ({"day": date(2026, 1, 5)}, "0.375"),
        ({"model": "text-embedding-3-small", "endpoint": "/v1/embeddings"}, "0.01"),
        ({"kind": "sandbox", "base_url": "http://127.0.0.1:9/v1"}, "0.375"),
        ({"model": "claude-haiku-4-5", "kind": "anthropic", "endpoint": "/v1/messages"}, "3"),
    ],
    ids=["batch", "direct", "dated", "before-the-table", "no-variant", "sandbox", "anthropic"],
)
def test_a_million_tokens_each_way(fields, cost):
    assert paid(tariff(**fields), input_tokens=MILLION, output_tokens=MILLION) == Decimal(cost)


def test_tokens_from_a_cache_have_their_own_price():
    by = tariff("gpt-5-nano")

    assert paid(by, input_tokens=MILLION, cached_tokens=MILLION) == Decimal("0.0025")


def test_tokens_written_to_a_cache_cost_more_and_for_an_hour_more_still():
    by = tariff("claude-haiku-4-5", kind="anthropic", endpoint="/v1/messages")
    tokens = {"input_tokens": 4 * MILLION, "written_tokens": 2 * MILLION}

    assert paid(by, **tokens, written_long_tokens=MILLION) == Decimal("1") + Decimal("1.625")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "nobody-knows-it"},
        {"base_url": "https://llm.example.com/v1"},
        {"endpoint": "/v1/images/generations"},
    ],
    ids=["model", "server", "pictures"],
)
def test_an_unknown_price_is_none(fields):
    assert price(Usage(input_tokens=5, output_tokens=5), tariff(**fields)) is None


@pytest.mark.parametrize("usage", [None, Usage()], ids=["none", "empty"])
def test_an_unknown_usage_is_none(usage):
    assert price(usage, tariff()) is None


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(["gpt-4o-mini", "gpt-5.4", "claude-sonnet-4-5", "claude-haiku-5-5"]),
    fresh=counts, read=counts, written=counts, output=counts,
)  # fmt: skip
def test_prices_are_the_librarys(model, fresh, read, written, output):
    kind = "anthropic" if model.startswith("claude") else "openai"
    written = written if kind == "anthropic" else 0
    total = fresh + read + written
    usage = Usage(
        input_tokens=total, cached_tokens=read, written_tokens=written, output_tokens=output
    )
    endpoint = "/v1/messages" if kind == "anthropic" else "/v1/responses"

    ours = price(usage, tariff(model, kind=kind, endpoint=endpoint))

    asked = Used(
        input_tokens=total, cache_read_tokens=read, cache_write_tokens=written, output_tokens=output
    )
    theirs = calc_price(
        asked, model, provider_id=kind, price_context={"processing": "batch"},
        genai_request_timestamp=datetime(2026, 11, 21, 12, tzinfo=UTC),
    )  # fmt: skip
    assert ours == pytest.approx(theirs.total_price * 10**9, abs=1)


@pytest.mark.parametrize(
    ("nano", "shown"),
    [(None, None), (0, "0"), (180, "0.00000018"), (10**9, "1"), (12_500_000_000, "12.5")],
)
def test_dollars_are_plain_decimals(nano, shown):
    assert dollars(nano) == shown
