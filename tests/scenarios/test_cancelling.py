"""Scenario 29: stopping a batch, wherever it is on its way."""

from __future__ import annotations

import pytest

from tests.scenarios.client import first_error, path_of
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER


@pytest.fixture
def under_way(api, road, receiver, provider):
    """Four requests at a provider that takes its time; return their batch."""
    misbehave(provider, fault("slow", in_progress_s=10_000, cancelling_s=1))
    for n in range(4):
        api.taken(f"x-{n}", f"Question {n}", to=receiver.url())
    road.until(lambda: bool(api.batches(state="processing")), by=TO_THE_PROVIDER)
    return api.only_batch()


def cancel(api, batch):
    return api.post(f"/api/batches/{batch['id']}/cancel")


def test_the_provider_is_asked_and_every_client_is_told(api, road, receiver, provider, under_way):
    """Scenario 29. House: the batch is cancelling until the provider's end, and bad ends are delivered."""
    answer = cancel(api, under_way)
    road.run()

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert provider.stats()["calls"]["batches.cancel"] == {"200": 1}
    batch = api.only_batch()
    assert path_of(batch)[4:] == [
        "processing",
        "cancelling",
        "cancelled",
        "downloading",
        "cancelled",
    ]
    assert set(api.states().values()) == {"cancelled"}
    came = receiver.by_id()
    assert {body["outcome"] for body in came.values()} == {"cancelled"}
    assert {body["error"]["code"] for body in came.values()} == {"cancelled"}
    assert provider.stats()["batches"]["created"] == 1


def test_answers_that_were_finished_by_then_are_kept(api, road, receiver, provider, under_way):
    """House: what was paid for is delivered; only what never ran is cancelled."""
    road.until(lambda: api.only_batch()["provider_status"] == "in_progress", by=("poll",))
    provider.advance_clock(6_000)

    cancel(api, under_way)
    road.run()

    outcomes = sorted(body["outcome"] for body in receiver.by_id().values())
    states = sorted(api.states().values())
    assert set(outcomes) == {"cancelled", "succeeded"}
    assert states == [o.replace("succeeded", "delivered") for o in outcomes]
    assert path_of(api.only_batch())[5:9] == [
        *("cancelling", "cancelled", "downloading", "ready_to_deliver")
    ]
    again = receiver.calls[:]
    road.later(days=1)
    road.run()
    assert receiver.calls == again, "a cancelled request is told of once and never again"


def test_a_batch_unknown_to_the_provider_is_simply_cancelled(
    api, road, receiver, provider, under_way
):
    """Scenario 29: 404 is tolerated."""
    misbehave(provider, fault("http_error", route="batches.cancel", status=404))

    answer = cancel(api, under_way)
    road.run()

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert set(api.states().values()) == {"cancelled"}
    assert len(receiver.by_id()) == 4


def test_nothing_changes_when_the_provider_refuses_to_cancel(api, under_way, provider):
    """Scenario 29: 500, and the error is shown."""
    misbehave(provider, fault("http_error", route="batches.cancel", status=500))

    refused = cancel(api, under_way)

    assert refused.status_code == 409
    error = first_error(refused)
    assert (error["code"], error["meta"]) == ("provider_refused", {"state": "processing"})
    assert "answered 500" in error["detail"]
    assert api.only_batch()["transitions"] == under_way["transitions"]
    assert set(api.states().values()) == {"processing"}


@pytest.mark.parametrize(
    ("phases", "state", "files"),
    [
        pytest.param(("pack",), "uploading", 0, id="before its upload"),
        pytest.param(("pack", "upload"), "uploaded", 1, id="before its creation"),
    ],
)
def test_a_batch_that_was_cancelled_before_the_provider_had_it_never_goes_there(
    api, road, receiver, provider, phases, state, files
):
    """Scenario 29: what was due for it never runs."""
    api.taken("early", to=receiver.url())
    road.step(*phases)
    batch = api.only_batch()
    assert batch["state"] == state

    answer = cancel(api, batch)
    road.run()

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert provider.stats()["files"] == files
    assert "batches.create" not in provider.stats()["calls"]
    assert [body["outcome"] for body in receiver.bodies()] == ["cancelled"]
    assert path_of(api.request("early")) == ["pending", "cancelled"]


def test_a_batch_that_may_be_at_the_provider_is_looked_for_and_stopped_there(
    api, road, receiver, provider
):
    """House: cancelled while its creation is in doubt; what the provider has is found and cancelled."""
    slow = fault("slow", in_progress_s=10_000, cancelling_s=1)
    misbehave(provider, slow, fault("drop_connection", route="batches.create", times=1))
    api.taken("doubt", to=receiver.url())
    road.step(*TO_THE_PROVIDER)
    doubtful = api.only_batch()

    answer = cancel(api, doubtful)
    road.later(minutes=3)
    road.run()

    assert (doubtful["state"], doubtful["provider_batch_id"]) == ("submitting", None)
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    stats = provider.stats()
    assert stats["batches"] == {"created": 1, "by_status": {"cancelled": 1}}
    assert path_of(api.only_batch())[3:6] == ["submitting", "cancelling", "cancelled"]
    assert [body["outcome"] for body in receiver.bodies()] == ["cancelled"]


def test_what_was_delivered_stays_delivered(api, road, receiver):
    """Scenario 29: an ended batch has nothing left to stop."""
    api.taken("done", to=receiver.url())
    road.run()

    refused = cancel(api, api.only_batch())

    assert refused.status_code == 409
    assert first_error(refused)["meta"] == {"state": "delivered"}
    assert api.states() == {"done": "delivered"}
