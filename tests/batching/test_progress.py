"""Whatever waits says why, in one plain sentence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching.lifecycle import BatchState, RequestState
from batching.progress import explain_batch, explain_request
from tests.batching.rows import NOW, a_batch, a_destination, a_request

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", [str(s) for s in BatchState])
def test_every_state_of_a_batch_has_its_own_sentence(state):
    batch = a_batch(state=state, wait_reason="the lane is full", last_error="")

    sentence = explain_batch(batch, NOW)

    assert sentence[0].isupper()
    assert sentence != f"It is {state}."
    assert "None" not in sentence


@pytest.mark.parametrize("state", [str(s) for s in RequestState])
@pytest.mark.parametrize("packed", [True, False])
def test_every_state_of_a_request_has_a_sentence(state, packed):
    request = a_request(state=state, batch=a_batch() if packed else None)

    sentence = explain_request(request, NOW)

    assert sentence[0].isupper()
    assert "None" not in sentence


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"state": "building", "request_count": 1234, "seal_by": NOW},
            "It is filling: 1,234 requests so far; it goes when it is full,"
            " or at 2026-11-21 12:00:00 UTC.",
        ),
        (
            {"state": "waiting_for_capacity", "wait_reason": "no room"},
            "It waits (place 1 of 1 in its lane): no room.",
        ),
        (
            {
                "state": "processing",
                "provider_status": "in_progress",
                "provider_total": 10,
                "provider_completed": 3,
                "provider_failed": 1,
                "next_attempt_at": NOW,
            },
            "The provider works on it (in_progress): 4 of 10 done;"
            " next look at 2026-11-21 12:00:00 UTC.",
        ),
        (
            {"state": "building", "paused_at": NOW, "pause_reason": "by user anna: costs"},
            "It is filling: 0 requests so far; it goes when it is full. It is paused by user anna: costs;"
            " it is not started until someone resumes it.",
        ),
        (
            {"state": "submitting", "paused_at": NOW, "pause_reason": "by user anna: costs"},
            "The provider was asked to start it; its answer is awaited. Pausing, by user anna: costs:"
            " what the provider holds is finished and delivered.",
        ),
        ({"state": "failed", "last_error": "bad file"}, "It failed: bad file"),
        (
            {
                "state": "uploading",
                "request_count": 2,
                "last_error": "key revoked",
                "next_attempt_at": NOW + timedelta(seconds=5),
            },
            "Its file of 2 requests is being uploaded. Last trouble: key revoked."
            " Next try at 2026-11-21 12:00:05 UTC.",
        ),
    ],
    ids=["building", "waiting", "processing", "paused", "pausing", "failed", "in-trouble"],
)
def test_a_batch_says_what_it_waits_for(fields, expected):
    assert explain_batch(a_batch(**fields), NOW) == expected


def test_a_request_in_a_batch_says_what_its_batch_waits_for():
    batch = a_batch(state="waiting_for_capacity", wait_reason="no room")

    sentence = explain_request(a_request(batch=batch), NOW)

    assert sentence == f"It is in batch {batch.key}. It waits (place 1 of 1 in its lane): no room."


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"delivered_at": NOW}, "The result was delivered at 2026-11-21 12:00:00 UTC."),
        ({"dead_at": NOW, "tries": 10}, "Delivery was given up after 10 tries"),
        (
            {"due_at": NOW + timedelta(minutes=5), "tries": 2},
            "Try 3 at delivery is due at 2026-11-21 12:05:00 UTC.",
        ),
        ({"due_at": NOW}, "The result is being delivered."),
    ],
    ids=["delivered", "given-up", "waiting", "due"],
)
def test_a_result_says_where_it_is(fields, expected):
    request = a_request(state="processed", destination=a_destination(), **fields)

    assert expected in explain_request(request, NOW)


@pytest.mark.parametrize("held", ["paused", "disabled"])
def test_a_held_result_says_why(held):
    destination = a_destination(stop_reason="it asked us to", **{f"{held}_at": NOW})
    request = a_request(state="processed", destination=destination, due_at=NOW)

    sentence = explain_request(request, NOW)

    assert f"its destination is {held} (it asked us to)" in sentence


def test_a_bad_end_says_its_error():
    request = a_request(state="failed", error_code="server_error", error_message="oh no")

    assert explain_request(request, NOW).startswith("It is failed (server_error: oh no).")
