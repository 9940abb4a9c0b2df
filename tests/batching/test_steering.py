"""What a person may do to a batch or a request, and what is refused with a reason."""

from __future__ import annotations

import pytest
from django.db.models import F

from batching import steering
from batching.lifecycle import Actor, BatchState, RequestState
from batching.models import Batch, Request, RequestBody
from batching.providers.base import NotFound, Trouble
from batching.steering import Refused
from tests.batching.fake_provider import trouble
from tests.batching.rows import (
    NOW,
    a_batch,
    a_batch_at_provider,
    a_destination,
    a_request,
    an_answer,
    log_of,
    states_of,
)

pytestmark = pytest.mark.django_db

HOW = {"by": Actor(name="key abc"), "reason": "because", "now": NOW}


def refusal(deed, row, **how) -> str:
    """Return the code with which a deed is refused; nothing may have changed."""
    before = states_of(row)
    with pytest.raises(Refused) as refused:
        deed(row, **HOW, **how)
    assert states_of(row) == before
    assert refused.value.detail
    return refused.value.code


def other_states(kind, *allowed):
    return [str(s) for s in kind if s not in allowed]


# Sealing


def test_a_building_batch_is_sealed_on_request():
    batch = a_batch()
    a_request(batch=batch)

    steering.seal(batch, **HOW)

    assert (batch.state, batch.request_count, batch.next_attempt_at) == ("uploading", 1, NOW)
    assert log_of(batch)[-1][4] == "because [by key abc]"


def test_an_empty_batch_is_not_sealed():
    assert refusal(steering.seal, a_batch()) == "empty_batch"


@pytest.mark.parametrize("state", other_states(BatchState, "building"))
def test_only_a_building_batch_is_sealed(state):
    assert refusal(steering.seal, a_batch(state=state)) == "invalid_batch_state"


# Cancelling a batch


@pytest.mark.parametrize("state", ["building", "uploading", "uploaded", "waiting_for_capacity"])
def test_a_batch_the_provider_does_not_hold_ends_at_once(provider, state):
    batch = a_batch(state=state, next_attempt_at=NOW)
    waiting = a_request(batch=batch, destination=a_destination())
    failed = a_request(batch=batch, state="failed")

    steering.cancel_batch(batch, **HOW)

    assert (batch.state, batch.next_attempt_at) == ("cancelled", None)
    assert states_of(waiting, failed) == ["cancelled", "failed"]
    waiting.refresh_from_db()
    assert (waiting.error_message, waiting.due_at) == ("because", NOW)
    assert provider.calls == []


def test_a_processing_batch_is_cancelled_by_its_provider_first(provider):
    batch, requests = a_batch_at_provider(provider)

    steering.cancel_batch(batch, **HOW)

    assert (batch.state, batch.cancel_asked, batch.next_attempt_at) == ("cancelling", True, NOW)
    assert provider.only_batch().raw_status == "cancelling"
    assert states_of(*requests) == ["processing"] * 3


def test_a_provider_that_says_no_changes_nothing(provider):
    batch, _ = a_batch_at_provider(provider)
    provider.refuse("cancel", trouble(Trouble.RETRY, "busy"))

    assert refusal(steering.cancel_batch, batch) == "provider_refused"
    assert not Batch.objects.get().cancel_asked


def test_a_batch_unknown_to_its_provider_ends_with_its_requests(provider):
    batch, requests = a_batch_at_provider(provider)
    provider.refuse("cancel", NotFound("no such batch"))

    steering.cancel_batch(batch, **HOW)

    assert (batch.state, batch.next_attempt_at) == ("cancelled", None)
    assert states_of(*requests) == ["cancelled"] * 3


def test_a_batch_that_is_being_created_is_cancelled_once_it_is_found(provider):
    batch = a_batch(state="submitting", next_attempt_at=NOW)

    steering.cancel_batch(batch, **HOW)

    assert (batch.state, batch.cancel_asked, provider.calls) == ("cancelling", True, [])


def test_a_cancellation_holds_though_a_worker_claimed_the_batch_meanwhile(provider):
    batch, _ = a_batch_at_provider(provider)
    Batch.objects.update(fence=F("fence") + 1)

    steering.cancel_batch(batch, **HOW)

    assert states_of(batch) == ["cancelling"]


def test_a_cancellation_that_comes_too_late_says_so(provider):
    batch, _ = a_batch_at_provider(provider)
    Batch.objects.update(state="completed")

    assert refusal(steering.cancel_batch, batch) == "invalid_batch_state"


@pytest.mark.parametrize(
    "state", ["cancelling", "completed", "downloading", "delivering", "delivered", "failed"]
)
def test_what_is_past_stopping_is_not_cancelled(provider, state):
    assert refusal(steering.cancel_batch, a_batch(state=state)) == "invalid_batch_state"


# Restarting


def test_a_restart_sends_what_is_unfinished_and_leaves_the_rest():
    batch = a_batch(
        state="failed", cancel_asked=True, provider_batch_id="b", output_file_id="f", tries=4
    )
    failed, delivered = (a_request(batch=batch, state=s) for s in ("failed", "delivered"))

    steering.restart_batch(batch, **HOW)

    assert (batch.state, batch.next_attempt_at, batch.tries) == ("uploading", NOW, 0)
    assert (batch.provider_batch_id, batch.output_file_id) == ("", "")
    assert (batch.cancel_asked, batch.request_count) == (False, 1)
    assert states_of(failed, delivered) == ["pending", "delivered"]
    failed.refresh_from_db()
    assert (failed.attempt, failed.batch) == (2, batch)


def test_a_failed_batch_without_unfinished_requests_is_not_restarted():
    batch = a_batch(state="failed")
    a_request(batch=batch, state="delivered")

    assert refusal(steering.restart_batch, batch) == "nothing_to_do"


@pytest.mark.parametrize("state", other_states(BatchState, "failed"))
def test_only_a_failed_batch_is_restarted(state):
    assert refusal(steering.restart_batch, a_batch(state=state)) == "invalid_batch_state"


# Deleting


@pytest.mark.parametrize("state", ["delivered", "failed", "cancelled", "expired"])
def test_an_ended_batch_is_deleted_with_its_requests_and_files(provider, state):
    provider.files = {"in": ("", b""), "out": ("", b""), "other": ("", b"")}
    batch = a_batch(state=state, next_attempt_at=None, input_file_id="in", output_file_id="out")
    an_answer(a_request(batch=batch, state="delivered"))
    kept = a_request()

    steering.delete_batch(batch, **HOW)

    assert not Batch.objects.exists()
    assert list(Request.objects.all()) == [kept]
    assert RequestBody.objects.count() == 1
    assert list(provider.files) == ["other"]


def test_a_provider_in_trouble_does_not_keep_a_batch_from_being_deleted(provider):
    provider.refuse("delete_file", trouble(Trouble.CREDENTIALS))

    steering.delete_batch(a_batch(state="failed", next_attempt_at=None, input_file_id="in"), **HOW)

    assert not Batch.objects.exists()


def test_a_batch_with_results_to_be_delivered_is_not_deleted(provider):
    batch = a_batch(state="failed", next_attempt_at=None)
    a_request(batch=batch, state="failed", due_at=NOW, destination=a_destination())

    assert refusal(steering.delete_batch, batch) == "undelivered"


@pytest.mark.parametrize(
    ("state", "facts"),
    [
        ("failed", {"state": "failed", "due_at": NOW}),
        ("delivering", {"state": "processed", "due_at": NOW}),
        ("delivery_failed", {"state": "delivery_failed", "dead_at": NOW}),
    ],
)
def test_undelivered_results_go_with_their_batch_once_that_is_confirmed(provider, state, facts):
    batch = a_batch(state=state, next_attempt_at=NOW if state == "delivering" else None)
    a_request(batch=batch, destination=a_destination(), **facts)
    assert refusal(steering.delete_batch, batch) == "undelivered"

    steering.delete_batch(batch, with_undelivered=True, **HOW)

    assert not Batch.objects.exists()
    assert not Request.objects.exists()


def test_a_file_that_can_not_be_deleted_keeps_no_other(provider):
    provider.files = {"in": ("", b""), "out": ("", b"")}
    provider.refuse("delete_file", trouble(Trouble.RETRY, "busy"))
    batch = a_batch(state="failed", next_attempt_at=None, input_file_id="in", output_file_id="out")

    steering.delete_batch(batch, **HOW)

    assert list(provider.files) == ["in"]


@pytest.mark.parametrize("state", ["building", "processing", "delivering", "expired"])
def test_a_batch_under_way_is_not_deleted(provider, state):
    batch = a_batch(state=state, next_attempt_at=NOW)

    assert refusal(steering.delete_batch, batch) == "invalid_batch_state"


# One request


@pytest.mark.parametrize("batch_state", [None, "building", "uploading"])
def test_a_request_is_taken_back_before_it_is_sent(batch_state):
    batch = a_batch(state=batch_state) if batch_state else None
    request = a_request(batch=batch, destination=a_destination())

    steering.cancel_request(request, **HOW)

    assert (request.state, request.error_code, request.error_message) == (
        "cancelled", "cancelled", "because",
    )  # fmt: skip
    assert request.due_at == NOW


@pytest.mark.parametrize("batch_state", ["uploaded", "submitting", "waiting_for_capacity"])
def test_a_request_in_an_uploaded_file_is_not_taken_back(batch_state):
    request = a_request(batch=a_batch(state=batch_state))

    assert refusal(steering.cancel_request, request) == "invalid_state"


@pytest.mark.parametrize("state", other_states(RequestState, "pending"))
def test_only_a_pending_request_is_taken_back(state):
    assert refusal(steering.cancel_request, a_request(state=state)) == "invalid_state"


def test_a_request_that_was_sent_meanwhile_is_not_taken_back():
    request = a_request()
    Request.objects.update(state="processing")

    with pytest.raises(Refused) as refused:
        steering.cancel_request(request, **HOW)

    assert refused.value.detail == "the request is processing by now"


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_a_request_that_ended_badly_is_sent_again_on_request(state):
    request = a_request(
        batch=a_batch(state="failed"), state=state, error_code="x", due_at=NOW, dead_at=NOW
    )

    steering.retry_request(request, **HOW)

    assert (request.state, request.attempt, request.batch) == ("pending", 2, None)
    assert (request.error_code, request.due_at, request.dead_at) == ("", None, None)


@pytest.mark.parametrize("state", other_states(RequestState, "failed", "expired", "cancelled"))
def test_no_other_request_is_sent_again(state):
    assert refusal(steering.retry_request, a_request(state=state)) == "invalid_state"
