"""Requests for /v1/messages, through the sandbox's Anthropic side: nothing bought twice, nothing of others kept."""

from __future__ import annotations

import json

import pytest
from anthropic import Anthropic

from batching import adoption, submission
from batching.lifecycle import BatchState
from batching.models import Account, Answer, Batch, Request
from tests.sandbox.driving import until
from tests.scenarios.client import new_request, path_of
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER

CREATE = "messages.batches.create"


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


@pytest.fixture(autouse=True)
def claude_account(account, provider) -> Account:
    return Account.objects.create(
        name="claude",
        kind=Account.Kind.SANDBOX_ANTHROPIC,
        base_url=provider.url,
        api_key="any",
        poll_seconds=1,
    )


@pytest.fixture
def strangers(provider):
    """Return a function that makes a batch of the size given, as another program would."""
    with Anthropic(base_url=provider.url, api_key="any", max_retries=0) as client:
        yield lambda size: client.messages.batches.create(
            requests=[
                {"custom_id": f"theirs-{n}", "params": body(f"Theirs {n}")} for n in range(size)
            ]
        )


def body(text: str, **more) -> dict:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": messages, **more}


def take(api, *texts: str, to=None) -> None:
    for n, text in enumerate(texts):
        api.taken(f"r-{n}", url="/v1/messages", body=body(text), to=to)


def created(provider) -> int:
    return provider.stats()["batches"]["created"]


def ended(provider, batch_id: str) -> None:
    """Wait until a batch has ended at the provider."""
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    with Anthropic(base_url=provider.url, api_key="any", default_headers=headers) as client:
        until(lambda: client.messages.batches.retrieve(batch_id).processing_status == "ended")


def killed_after_create(monkeypatch, road) -> None:
    """Create batches as a worker would that dies before it has written down what came of it."""

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(submission, "accepted", die)
        with pytest.raises(Killed):
            road.step(*TO_THE_PROVIDER)


def look_again(road) -> None:
    """Pass the lease and look once."""
    road.later(minutes=3)
    road.step("adopt")


def hold_a_strangers(api, road, provider, strangers):
    """Lose a creation, and adopt a running batch of the same size that someone else made meanwhile."""
    misbehave(provider, fault("http_error", status=500, route=CREATE, times=1))
    take(api, "One", "Two")
    road.step(*TO_THE_PROVIDER)
    misbehave(provider, durations={"in_progress_s": 3_000})
    theirs = strangers(2)
    look_again(road)
    return theirs


def test_a_message_is_delivered_as_the_body_of_a_response(api, road, receiver, provider):
    take(api, "What is water?", to=receiver.url())

    road.run()

    (came,) = receiver.by_id().values()
    message = came["response"]["body"]
    assert (came["outcome"], came["error"], came["response"]["status_code"]) == (
        "succeeded",
        None,
        200,
    )
    assert (came["custom_id"], came["id"], message["type"]) == ("r-0", message["id"], "message")
    assert "What is water?" in message["content"][0]["text"]
    assert came["usage"]["input_tokens"] == message["usage"]["input_tokens"]
    assert path_of(api.only_batch())[-1] == "delivered"
    assert provider.stats()["lines"]["answered_again"] == 0


def test_what_failed_is_told_and_what_expired_is_sent_again(api, road, receiver, provider):
    expire = fault("expire", after_answers=2, times=1)
    misbehave(provider, expire, fault("fail_line", body="bad", status=400, message="no"))
    take(api, "bad one", "bad two", "bad three", to=receiver.url())

    road.run()

    told = receiver.by_id().values()
    assert {each["error"]["code"] for each in told} == {"invalid_request_error"}
    assert {each["outcome"] for each in told} == {"failed"}
    attempts = sorted(Request.objects.values_list("attempt", flat=True))
    assert (attempts, created(provider)) == ([1, 1, 2], 2)
    assert provider.stats()["lines"]["by_outcome"] == {"failed": 3, "expired": 1}


def test_the_body_goes_out_and_the_answer_comes_in_byte_for_byte(api, road, provider):
    raw = '{"model":"claude-haiku-4-5",  "max_tokens":64, "messages":[{"role":"user","content":"\\u00e9"}]}'
    line = new_request("r", url="/v1/messages", body="BODY")
    api.call("POST", "/api/requests/bulk", data=json.dumps(line).replace('"BODY"', raw).encode())

    road.run()

    (batch_id,) = Batch.objects.values_list("provider_batch_id", flat=True)
    sent = provider.fetch("GET", f"/sandbox/batches/{batch_id}/lines")
    (stored,) = Answer.objects.values_list("line", flat=True)
    assert raw.encode() in sent
    assert json.loads(bytes(stored))["result"]["type"] == "succeeded"


def test_nothing_lies_on_our_disk_once_the_provider_has_it(api, road, settings):
    take(api, "One", "Two")

    road.step("pack", "upload")
    kept = list((settings.DATA_DIR / "batches").iterdir())
    road.step("submit")

    assert [path.suffix for path in kept] == [".jsonl"]
    assert list((settings.DATA_DIR / "batches").iterdir()) == []


def test_requests_whose_file_is_gone_are_written_again(api, road, settings, provider):
    take(api, "One", "Two")
    road.step("pack", "upload")
    for path in (settings.DATA_DIR / "batches").iterdir():
        path.unlink()

    road.run()

    assert set(api.states().values()) == {"processed"}
    assert created(provider) == 1


@pytest.mark.parametrize("end", ["killed", "dropped", "overloaded"])
def test_a_create_in_doubt_is_found_and_not_made_again(api, road, provider, monkeypatch, end):
    take(api, "One", "Two")
    if end == "killed":
        killed_after_create(monkeypatch, road)
    if end == "dropped":
        misbehave(provider, fault("drop_connection", route=CREATE, times=1))
    if end == "overloaded":
        misbehave(
            provider, fault("http_error", status=529, after_effect=True, route=CREATE, times=1)
        )
    road.step(*TO_THE_PROVIDER)
    assert Batch.objects.get().state == BatchState.SUBMITTING

    look_again(road)
    road.run()

    assert set(api.states().values()) == {"processed"}
    assert (created(provider), Batch.objects.get().is_unproven) == (1, False)


def test_a_running_batch_of_a_stranger_is_held_but_never_stopped_and_then_let_go(
    api, road, provider, strangers
):
    theirs = hold_a_strangers(api, road, provider, strangers)
    held = Batch.objects.get()
    assert (held.provider_batch_id, held.is_unproven) == (theirs.id, True)

    provider.advance_clock(4_000)
    ended(provider, theirs.id)
    road.later(minutes=1)
    road.step("poll")

    let_go = Batch.objects.get()
    assert (let_go.state, let_go.provider_batch_id) == ("submitting", "")
    assert set(api.states().values()) == {"pending"}
    assert "messages.batches.cancel" not in provider.stats()["calls"]


def test_an_ended_batch_of_a_stranger_is_no_candidate(api, road, provider, strangers):
    misbehave(provider, fault("http_error", status=500, route=CREATE, times=1))
    take(api, "One", "Two")
    road.step(*TO_THE_PROVIDER)
    ended(provider, strangers(2).id)

    look_again(road)
    assert Batch.objects.get().state == BatchState.SUBMITTING
    for _ in range(4):
        look_again(road)
        road.later(minutes=2)
    road.run()

    assert set(api.states().values()) == {"processed"}
    assert (created(provider), provider.stats()["lines"]["answered_again"]) == (2, 0)


def test_ours_is_told_from_a_strangers_of_the_same_size(
    api, road, provider, strangers, monkeypatch
):
    first = strangers(2)
    take(api, "One", "Two")
    killed_after_create(monkeypatch, road)
    second = strangers(2)
    for each in (first, second):
        ended(provider, each.id)

    look_again(road)
    road.run()

    assert Batch.objects.get().provider_batch_id not in (first.id, second.id)
    assert (set(api.states().values()), created(provider)) == ({"processed"}, 3)


def test_one_batch_at_a_time_is_created_while_one_is_in_doubt(api, road, provider):
    misbehave(provider, fault("http_error", status=500, route=CREATE, times=1))
    api.taken("a", url="/v1/messages", body=body("One"))
    road.step(*TO_THE_PROVIDER)
    look_again(road)  # it answers again, and does not know the batch
    api.taken("b", url="/v1/messages", body=body("Two"))
    road.step(*TO_THE_PROVIDER)

    waiting = Batch.objects.get(state=BatchState.WAITING_FOR_CAPACITY)
    assert "being created in its account" in waiting.wait_reason
    assert provider.stats()["calls"][CREATE] == {"500": 1}


def test_stopping_a_batch_that_may_be_a_strangers_stops_nothing_there(
    api, road, provider, strangers
):
    theirs = hold_a_strangers(api, road, provider, strangers)

    api.post(f"/api/batches/{api.only_batch()['id']}/cancel")
    road.step("poll")
    provider.advance_clock(4_000)
    ended(provider, theirs.id)
    road.run()
    for _ in range(6):
        look_again(road)
        road.later(minutes=2)

    assert set(api.states().values()) == {"cancelled"}
    assert "messages.batches.cancel" not in provider.stats()["calls"]


def test_a_batch_without_results_is_looked_at_again_and_never_bought_twice(api, road, provider):
    misbehave(provider, fault("no_output"))
    take(api, "One")

    road.run()
    road.later(minutes=2)
    road.run()

    assert api.request("r-0")["error"]["code"] == "missing_in_output"
    assert created(provider) == 1


def test_adoption_leaves_named_batches_to_their_names(api, road, provider):
    """An account of OpenAI's kind in the same queue is matched by what we wrote on its batch."""
    misbehave(provider, fault("drop_connection", route="batches.create", times=1))
    api.taken("o")
    road.step(*TO_THE_PROVIDER)

    road.later(minutes=3)
    assert adoption.adopt_due(road.now()) == 1
    road.run()

    assert (set(api.states().values()), created(provider)) == ({"processed"}, 1)
