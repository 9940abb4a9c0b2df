"""Scenarios 16 to 20: what fits goes, what does not waits with its reason, and a full queue is waited out."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from batching.models import Account
from tests.scenarios.client import path_of
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER


def send_each_alone(api, account, words: list[int]) -> list[int]:
    """Send one batch of each length; return what each takes up, by our estimate."""
    Account.objects.filter(pk=account.pk).update(max_requests=1, token_limit=10_000_000)
    for n, length in enumerate(words):
        api.taken(f"b-{n}", "one " * length)
    return [api.request(f"b-{n}")["token_estimate"] for n in range(len(words))]


def limit(account, tokens: int) -> None:
    Account.objects.filter(pk=account.pk).update(token_limit=tokens)


def started(api) -> set[int]:
    """Return which of them the provider holds."""
    return {int(name[2:]) for name, state in api.states().items() if state == "processing"}


@pytest.mark.parametrize(
    ("held", "waiting", "room", "goes"),
    [
        pytest.param(1200, (1800, 1800, 160), 800, {0, 3}, id="16: only the small one fits"),
        pytest.param(1200, (300, 200, 350), 600, {0, 1, 2}, id="17: two fit, the third waits"),
        pytest.param(1700, (900, 250, 200), 400, {0, 2}, id="18: the oldest that fits"),
    ],
)
def test_the_oldest_that_fits_goes_and_the_others_say_why(
    api, road, account, provider, held, waiting, room, goes
):
    """Scenarios 16, 17 and 18."""
    misbehave(provider, fault("slow", in_progress_s=100_000))
    first, *_ = send_each_alone(api, account, [held, *waiting])
    road.step("pack", "upload")
    limit(account, first + room)

    road.step("submit", "submit")

    assert started(api) == goes
    for n in set(range(4)) - goes:
        assert "enqueued tokens" in api.batch_of(f"b-{n}")["wait_reason"]


def test_a_higher_limit_lets_it_go(api, road, account, provider):
    """Scenario 19."""
    misbehave(provider, fault("slow", in_progress_s=100_000))
    first, second = send_each_alone(api, account, [1_950, 100])
    road.step("pack", "upload")
    limit(account, first + second - 1)
    road.step("submit")
    before = started(api)

    limit(account, first + second)
    road.later(seconds=6)
    road.step("submit")

    assert (before, started(api)) == ({0}, {0, 1})


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_full_queue_is_waited_out_longer_each_time_and_then_given_up(
    api, road, receiver, provider
):
    """Scenario 20: the count outlives each creation, and the file is used again."""
    misbehave(provider, fault("token_limit_exceeded"))
    api.taken("a", to=receiver.url())
    waits = []

    for _ in range(6):
        road.run()
        batch = api.only_batch()
        if batch["state"] == "waiting_for_capacity":
            at = moment(batch["next_attempt_at"])
            waits.append(round((at - road.now()) / timedelta(minutes=1)))
            road.later(seconds=(at - road.now()).total_seconds() + 1)

    assert waits == [5, 10, 20, 40, 80]
    assert api.only_batch()["state"] == "failed"
    assert "retries exhausted after 5" in api.only_batch()["last_error"]
    assert provider.stats()["calls"]["files.create"] == {"200": 1}
    assert provider.stats()["batches"]["created"] == 6
    assert [body["outcome"] for body in receiver.bodies()] == ["failed"]


def test_within_the_wait_nothing_is_asked_and_after_it_all_goes_well(api, road, receiver, provider):
    """Scenario 20: a request that was bounced has lost no attempt."""
    misbehave(provider, fault("token_limit_exceeded", times=1))
    api.taken("a", to=receiver.url())
    road.run()
    road.later(minutes=4)
    road.run()
    within = provider.stats()["batches"]["created"]

    road.later(minutes=2)
    road.run()

    assert (within, provider.stats()["batches"]["created"]) == (1, 2)
    assert path_of(api.request("a"))[:4] == ["pending", "processing", "pending", "processing"]
    assert (api.request("a")["attempt"], api.states()) == (1, {"a": "delivered"})


def test_a_bounce_at_the_creation_waits_too(api, road, receiver, provider):
    misbehave(provider, fault("token_limit_at_creation", times=2))
    api.taken("a", to=receiver.url())
    road.step(*TO_THE_PROVIDER)
    bounced = api.only_batch()

    for _ in range(3):
        road.later(minutes=1)
        road.run()

    assert bounced["state"] == "waiting_for_capacity"
    assert "the provider said no" in bounced["wait_reason"]
    assert (api.states(), len(receiver.calls)) == ({"a": "delivered"}, 1)
