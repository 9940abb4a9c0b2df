"""The provider is gone for hours while it holds batches."""

from __future__ import annotations

from batching.models import Account
from tests.scenarios.client import path_of
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER

GONE = fault("http_error", route="batches.*", status=503)


def test_an_outage_of_hours_changes_no_batch_and_all_results_arrive_after_it(api, road, provider):
    for n in range(4):
        api.taken(f"x-{n}", model=f"gpt-5-{n}")
    road.until(lambda: len(api.batches(state="processing")) == 4, by=TO_THE_PROVIDER)
    misbehave(provider, GONE)

    for _ in range(12):
        road.later(minutes=10)
        road.step("poll", "collect", "close")

    assert {batch["state"] for batch in api.batches()} == {"processing"}
    assert "has not answered since" in api.request("x-0")["why"]
    misbehave(provider)
    road.later(minutes=6)
    road.run()
    assert set(api.states().values()) == {"processed"}
    assert all("failed" not in path_of(api.batch(b["id"])) for b in api.batches())
    assert Account.objects.get().silent_since is None


def test_batches_under_way_together_are_looked_at_in_one_call(api, road, provider):
    for n in range(4):
        api.taken(f"x-{n}", model=f"gpt-5-{n}")
    road.until(lambda: len(api.batches(state="processing")) == 4, by=TO_THE_PROVIDER)
    road.later(minutes=1)

    road.step("poll")

    calls = provider.stats()["calls"]
    assert calls["batches.list"] == {"200": 1}
    assert "batches.retrieve" not in calls


def test_nothing_is_asked_of_a_silent_provider_that_would_be_in_doubt(api, road, provider):
    api.taken("x-0", model="gpt-5-0")
    road.until(lambda: len(api.batches(state="processing")) == 1, by=TO_THE_PROVIDER)
    misbehave(provider, GONE)
    road.later(minutes=1)
    road.step("poll")

    for n in range(1, 4):
        api.taken(f"x-{n}", model=f"gpt-5-{n}")
    road.until(lambda: len(api.batches(state="waiting_for_capacity")) == 3, by=TO_THE_PROVIDER)

    assert "has not answered since" in api.request("x-1")["why"]
    assert provider.stats()["calls"]["batches.create"] == {"200": 1}
    misbehave(provider)
    road.later(minutes=1)
    road.run()
    assert set(api.states().values()) == {"processed"}


def test_one_creation_in_doubt_finds_out_that_the_provider_is_back(api, road, provider):
    misbehave(provider, GONE)
    for n in range(3):
        api.taken(f"x-{n}", model=f"gpt-5-{n}")
    road.until(lambda: len(api.batches(state="waiting_for_capacity")) == 2, by=TO_THE_PROVIDER)
    assert provider.stats()["calls"]["batches.create"] == {"503": 1}

    misbehave(provider)
    road.later(seconds=30)
    road.run()

    assert sorted(api.states().values()) == ["pending", "processed", "processed"]
    for _ in range(4):
        road.later(minutes=5)
        road.run()
    assert set(api.states().values()) == {"processed"}
