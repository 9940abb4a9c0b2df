"""Scenarios 2, 3, 9, 10, 21, 22: batches that end early or in part, and answers that never came."""

from __future__ import annotations

import json

import pytest

from tests.scenarios.client import new_request, path_of
from tests.scenarios.provider import fault, misbehave, uploaded


def send(api, receiver, count: int) -> None:
    api.send_bulk([new_request(f"r-{n}", f"Question {n}", to=receiver.url()) for n in range(count)])


def names(provider, batch) -> list[str]:
    """Return the ids on the wire of a batch's input file, in its order."""
    return [json.loads(line)["custom_id"] for line in uploaded(provider, batch)]


@pytest.mark.parametrize(
    "early",
    [
        pytest.param(fault("expire", after_answers=2, times=1), id="expired"),
        pytest.param(fault("cancel_by_provider", after_answers=2, times=1), id="cancelled"),
    ],
)
def test_what_was_answered_stays_and_only_the_rest_goes_again(api, road, receiver, provider, early):
    """Scenarios 2 and 22."""
    misbehave(provider, early)
    send(api, receiver, 5)

    road.run()

    first, second = api.batches()
    again = {row["id"] for row in api.requests() if api.request(row["custom_id"])["attempt"] == 2}
    assert set(names(provider, second)) == again
    assert (len(names(provider, first)), len(again)) == (5, 3)
    assert (first["state"], second["state"]) == ("delivered", "delivered")
    came = receiver.by_id()
    assert (len(came), {body["outcome"] for body in came.values()}) == (5, {"succeeded"})


def test_a_failed_line_of_an_expired_batch_is_told_at_once(api, road, receiver, provider):
    """Scenario 2: one failed, the others go on; house: only what may go better is sent again."""
    bad = fault("fail_line", body="bad", status=400, code="invalid_value")
    misbehave(provider, fault("expire", after_answers=3, times=1), bad)
    send(api, receiver, 4)
    api.taken("f", "bad", to=receiver.url())

    road.run()

    outcomes = {custom_id: body["outcome"] for custom_id, body in receiver.by_id().items()}
    assert outcomes.pop("f") == "failed"
    assert set(outcomes.values()) == {"succeeded"}


@pytest.mark.parametrize(("status", "code"), [(500, "server_error"), (429, "rate_limit_exceeded")])
def test_an_error_that_may_pass_is_sent_again_and_its_batch_ends_well(
    api, road, receiver, provider, status, code
):
    """Scenario 3, with real counts. House: a rate limit passes, too."""
    misbehave(provider, fault("fail_line", body="Question 1", status=status, code=code, times=1))
    send(api, receiver, 2)

    road.run()

    first, second = api.batches()
    assert first["provider_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert (first["state"], second["state"]) == ("delivered", "delivered")
    assert path_of(api.request("r-1"))[:3] == ["pending", "processing", "pending"]
    assert set(api.states().values()) == {"delivered"}
    assert len(receiver.by_id()) == 2


def test_an_error_that_does_not_pass_ends_after_five_attempts(api, road, receiver, provider):
    misbehave(provider, fault("fail_line", status=503))
    send(api, receiver, 1)

    road.run()

    assert (api.request("r-0")["attempt"], api.states()) == (5, {"r-0": "failed"})
    assert provider.stats()["batches"]["created"] == 5
    assert [body["outcome"] for body in receiver.bodies()] == ["failed"]


def test_a_missing_answer_is_told_and_may_be_sent_again(api, road, receiver, provider):
    """Scenario 9: the counts say that all is there; the request says that it is not."""
    misbehave(provider, fault("drop_line", body="Question 1", times=1))
    send(api, receiver, 2)

    road.run()
    looking = api.only_batch()
    road.later(minutes=1)
    road.run()
    told = {custom_id: body["outcome"] for custom_id, body in receiver.by_id().items()}
    answer = api.post("/api/requests/r-1/retry")
    road.run()

    assert "1 answers are missing" in looking["last_error"]
    assert told == {"r-0": "succeeded", "r-1": "failed"}
    assert receiver.bodies()[1]["error"]["code"] == "missing_in_output"
    assert answer.status_code == 202
    assert api.states() == {"r-0": "delivered", "r-1": "delivered"}
    assert receiver.custom_ids() == ["r-0", "r-1", "r-1"]


def test_a_lost_file_of_answers_ends_in_words(api, road, receiver, provider):
    """House: a file that answers 404 does not keep its batch downloading for ever."""
    misbehave(provider, fault("http_error", route="files.content", status=404))
    send(api, receiver, 2)

    road.run()
    waiting = api.only_batch()
    for _ in range(10):
        road.later(minutes=15)
        road.run()

    assert waiting["state"] == "downloading"
    assert "no longer has all of the batch's answers" in waiting["last_error"]
    assert {body["error"]["code"] for body in receiver.by_id().values()} == {"missing_in_output"}
    assert api.only_batch()["state"] == "failed"


def test_the_first_of_two_answers_holds(api, road, receiver, provider):
    """Scenario 10. House: a later line changes nothing, also if it says the opposite."""
    misbehave(provider, fault("duplicate_line", conflicting=True))
    send(api, receiver, 2)

    road.run()
    road.later(hours=1)
    road.run()

    assert {body["outcome"] for body in receiver.by_id().values()} == {"succeeded"}
    assert api.only_batch()["state"] == "delivered"


def test_an_expired_batch_without_files_goes_again_through_a_bad_network(
    api, road, receiver, provider
):
    """Scenario 21. House: a new file of what is left, and a second creation that breaks off at first."""
    misbehave(
        provider,
        *(fault("expire", after_answers=0, times=1), fault("no_output", times=1)),
        fault("drop_connection", route="batches.create", nth=2, after_effect=False),
    )
    send(api, receiver, 3)

    road.run()
    road.until(lambda: road.later(minutes=1) or len(receiver.calls) == 3)

    assert provider.stats()["batches"]["created"] == 2
    assert {body["outcome"] for body in receiver.by_id().values()} == {"succeeded"}
    assert path_of(api.request("r-0"))[:4] == ["pending", "processing", "pending", "processing"]
