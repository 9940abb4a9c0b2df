"""``deliver_by`` on the whole road: a client is told that it can't be met, or is answered without a batch."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import deadlines, direct
from batching.models import Account, DirectSpend, Project
from tests.scenarios.client import first_error
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER

CLAUDE = {
    "model": "claude-haiku-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}],
}  # fmt: skip
GPT = {"model": "gpt-4o-mini", "input": "Hi"}


@pytest.fixture
def soon(api, road):
    """Return a time in the near future, as JSON has it; it has passed by `road.later(hours=1)`."""
    return (road.now() + timedelta(minutes=30)).isoformat()


def policy(word: str, cap="0") -> None:
    Project.objects.update(deadline_policy=word, direct_cap=cap)


def test_a_deadline_that_passed_is_told_and_the_rest_of_its_batch_goes_on(
    api, road, receiver, provider, soon
):
    policy("fail")
    misbehave(provider, fault("token_limit_at_creation", times=1))
    api.taken("late", to=receiver.url(), deliver_by=soon, max_wait_s=0)
    api.taken("other", to=receiver.url(), max_wait_s=0)
    road.step(*TO_THE_PROVIDER)
    assert api.batch_of("late")["state"] == "waiting_for_capacity"

    road.later(hours=1)
    deadlines.watch(road.now())
    road.run()

    ends = {told["custom_id"]: told for told in receiver.bodies()}
    assert ends["late"]["error"]["code"] == "deadline_exceeded"
    assert (ends["late"]["outcome"], ends["other"]["outcome"]) == ("failed", "succeeded")
    assert provider.stats()["batches"]["created"] == 1


@pytest.mark.parametrize(
    ("url", "body", "kind"),
    [
        ("/v1/responses", GPT, Account.Kind.SANDBOX),
        ("/v1/messages", CLAUDE, Account.Kind.SANDBOX_ANTHROPIC),
    ],
    ids=["openai", "anthropic"],
)
def test_what_no_batch_brings_in_time_is_asked_directly(
    api, road, receiver, provider, soon, url, body, kind
):
    policy("direct", cap="1")
    Account.objects.get_or_create(
        kind=kind, defaults={"name": "two", "base_url": provider.url, "api_key": "any"}
    )
    api.taken("late", to=receiver.url(), url=url, body=body, deliver_by=soon)
    road.step("pack")

    road.later(hours=1)
    direct.answer_late(road.now())
    road.run()

    (told,) = receiver.bodies()
    assert (told["outcome"], told["response"]["status_code"]) == ("succeeded", 200)
    assert told["response"]["body"]["model"].startswith(body["model"])
    assert float(told["cost"]) == DirectSpend.objects.get().nano / 10**9 > 0
    assert provider.stats()["batches"]["created"] == 0


def test_when_the_deadline_passes_nothing_more_is_sent_and_what_runs_is_kept(
    api, road, receiver, provider, soon
):
    """AC-10. House: what a provider runs is paid for, so it is awaited and delivered, late or not."""
    policy("fail")
    Account.objects.update(max_batches_in_flight=2)
    for n in range(6):
        api.taken(f"d-{n}", model=f"gpt-5-{n}", to=receiver.url(), deliver_by=soon, max_wait_s=0)
    road.until(lambda: len(api.batches(state="waiting_for_capacity")) == 4, by=TO_THE_PROVIDER)

    road.later(hours=1)
    deadlines.watch(road.now())
    road.run()

    codes = [(told["error"] or {}).get("code") for told in receiver.bodies()]
    assert sorted(map(str, codes)) == ["None"] * 2 + ["deadline_exceeded"] * 4
    assert provider.stats()["batches"]["created"] == 2


def test_a_deadline_that_is_over_is_taken_for_it_may_be_a_repeat_and_ends_by_the_policy(
    api, road, receiver, provider
):
    policy("fail")
    past = (road.now() - timedelta(hours=1)).isoformat()
    first = api.taken("d", to=receiver.url(), deliver_by=past)

    again = api.send("d", to=receiver.url(), deliver_by=past)
    deadlines.watch(road.now())
    road.run()

    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    assert [told["error"]["code"] for told in receiver.bodies()] == ["deadline_exceeded"]
    assert provider.stats()["batches"]["created"] == 0


@pytest.mark.parametrize("wrong", ["tomorrow", "2026-03-01", "2026-03-01T12:00:00", 60, ""])
def test_a_deadline_that_is_no_moment_is_refused_where_it_stands(api, wrong):
    """AC-10."""
    refused = api.send("d", deliver_by=wrong)

    assert refused.status_code == 422
    assert first_error(refused)["source"] == {"pointer": "/deliver_by"}
    assert "with an offset" in first_error(refused)["detail"]
