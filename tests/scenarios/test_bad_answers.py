"""Scenarios 6, 7, 8, 24: what the provider writes is wrong in every way, and stays one bad thing each."""

from __future__ import annotations

import pytest

from tests.scenarios.client import new_request, path_of
from tests.scenarios.provider import fault, misbehave, remote_batch

WAY_TO_FAILED = [
    *("building", "uploading", "uploaded", "submitting", "processing", "completed"),
    *("downloading", "failed"),
]


ALL_BAD = (
    fault("fail_line", body="status 400", status=400, code="invalid_value", file="output"),
    fault("fail_line", body="error inside", status=200, code="odd", file="output"),
    fault("line_error", body="top level", error="Top level", file="output"),
)


def test_an_output_file_with_nothing_but_errors_fails_its_batch(api, road, receiver, provider):
    """Scenario 6. House: each client is told, by an envelope whose outcome is failed."""
    misbehave(provider, *ALL_BAD)
    for custom_id in ("status 400", "error inside", "top level"):
        api.taken(custom_id, custom_id, to=receiver.url())

    road.run()

    batch, came = api.only_batch(), receiver.by_id()
    assert path_of(batch) == WAY_TO_FAILED
    assert batch["last_error"] == "All requests in batch failed"
    assert batch["requests"] == {"failed": 3}
    assert {body["outcome"] for body in came.values()} == {"failed"}
    assert came["status 400"]["response"]["status_code"] == 400
    assert came["status 400"]["response"]["body"]["error"]["code"] == "invalid_value"
    assert came["error inside"]["response"]["status_code"] == 200
    assert came["error inside"]["response"]["body"]["error"]["code"] == "odd"
    assert (came["top level"]["response"], came["top level"]["error"]) == (None, "Top level")
    assert api.request("status 400")["error"]["code"] == "invalid_value"
    assert api.request("top level")["error"] == "Top level"


def test_a_batch_with_only_an_error_file_fails(api, road, receiver, provider):
    """Scenario 7: errors as a string, as an object, and as a response alone."""
    wrong = {"code": "content_policy", "message": "No."}
    misbehave(
        provider,
        fault("line_error", body="a string", error="boom"),
        fault("line_error", body="an object", error=wrong),
        fault("fail_line", body="a response", status=422, message="Unprocessable"),
    )
    for custom_id in ("a string", "an object", "a response"):
        api.taken(custom_id, custom_id, to=receiver.url())

    road.run()

    batch, came = api.only_batch(), receiver.by_id()
    assert remote_batch(provider, batch)["output_file_id"] is None
    assert (batch["state"], batch["last_error"]) == ("failed", "All requests in batch failed")
    assert api.states() == dict.fromkeys(came, "failed")
    assert came["a string"]["error"] == "boom"
    assert came["an object"]["error"] == wrong
    assert api.request("a response")["error"]["message"] == "Unprocessable"


def test_one_failed_line_leaves_the_others_alone(api, road, receiver, provider):
    """Scenario 7's other half: the batch is delivered in part, and says how much."""
    misbehave(provider, fault("fail_line", body="poison", status=400, code="invalid_value"))
    api.taken("good", to=receiver.url())
    api.taken("bad", "poison", to=receiver.url())

    road.run()

    batch, came = api.only_batch(), receiver.by_id()
    assert batch["state"] == "partially_delivered"
    assert (batch["answered_count"], batch["failed_count"]) == (1, 1)
    assert (came["good"]["outcome"], came["bad"]["outcome"]) == ("succeeded", "failed")
    assert path_of(api.request("bad")) == ["pending", "processing", "failed"]
    assert api.request("bad")["delivered_at"] is not None


def test_lines_that_belong_to_nobody_are_passed_over(api, road, receiver, provider):
    """Scenario 8: blank, broken, unknown and doubled lines around two good answers."""
    misbehave(
        provider,
        *(fault(name, body="m1") for name in ("duplicate_line", "blank_line", "invalid_json")),
        *(fault(name, body="m2") for name in ("unknown_line", "crlf_ending")),
    )
    api.taken("m1", "m1", to=receiver.url())
    api.taken("m2", "m2", to=receiver.url())

    road.run()

    assert api.only_batch()["state"] == "delivered"
    assert {body["outcome"] for body in receiver.by_id().values()} == {"succeeded"}


def test_an_answer_that_lost_its_name_is_looked_for_and_then_given_up(
    api, road, receiver, provider
):
    """Scenario 8: a line without custom_id answers nobody; its request ends with a reason."""
    misbehave(provider, fault("no_custom_id", body="nameless"))
    api.taken("m1", to=receiver.url())
    api.taken("m3", "nameless", to=receiver.url())

    road.run()
    waiting = api.only_batch()
    road.later(minutes=1)
    road.run()

    assert waiting["state"] == "downloading"
    assert "1 answers are missing" in waiting["last_error"]
    came = receiver.by_id()
    assert (came["m1"]["outcome"], came["m3"]["outcome"]) == ("succeeded", "failed")
    assert came["m3"]["error"]["code"] == "missing_in_output"
    assert api.only_batch()["state"] == "partially_delivered"


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param({"total": "eleven", "completed": "nine", "failed": -1}, id="nonsense"),
        pytest.param(None, id="nothing"),
    ],
)
def test_nonsense_for_progress_changes_nothing_that_was_known(api, road, provider, nonsense):
    """Scenario 24: the counts of the last good look stay, and looking goes on."""
    slow = fault("slow", in_progress_s=5_000, finalizing_s=5_000)
    misbehave(provider, slow, fault("bad_counts", counts=nonsense, during="finalizing"))
    api.send_bulk([new_request(f"p-{n}") for n in range(4)])
    road.until(lambda: _provider_status(api) == "in_progress")
    provider.advance_clock(4_000)
    road.until(lambda: api.only_batch()["provider_counts"]["completed"] != 0)
    known = api.only_batch()

    provider.advance_clock(3_000)
    road.until(lambda: _provider_status(api) == "finalizing")

    batch = api.only_batch()
    assert known["provider_counts"]["total"] == 4
    assert batch["provider_counts"] == known["provider_counts"]
    assert batch["next_attempt_at"] > known["next_attempt_at"]
    provider.advance_clock(5_000)
    road.run()
    assert api.only_batch()["state"] == "delivered"


def _provider_status(api):
    """Return the provider's status as our batch has it, once there is one."""
    batches = api.batches()
    return batches[0]["provider_status"] if batches else None
