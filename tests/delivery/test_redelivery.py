"""Results are sent again because someone asked, under the id they had."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import closing
from batching.lifecycle import Actor, BatchState, Stale
from batching.models import Batch, Request
from batching.steering import Refused
from delivery import due, redelivery
from tests.batching.rows import NOW, a_batch, a_destination, a_request, an_answer, states_of
from tests.delivery.results import a_bad_end, a_result

pytestmark = pytest.mark.django_db

HOW = {"by": Actor(name="someone"), "reason": "asked", "now": NOW}
SENT = {"due_at": None, "tries": 3}


def again(row):
    return type(row).objects.get(pk=row.pk)


def refusal(deed, row, **how) -> str:
    with pytest.raises(Refused) as refused:
        deed(row, **HOW, **how)
    return refused.value.code


@pytest.mark.parametrize(
    ("state", "then"), [("delivered", "processed"), ("delivery_failed", "processed")]
)
def test_a_result_is_due_again_with_its_tries_forgotten(state, then):
    request = a_result(state=state, dead_at=NOW, delivered_at=NOW, **SENT)

    redelivery.redeliver_request(request, **HOW)

    assert (request.state, request.due_at) == (then, NOW)
    assert (request.tries, request.replays) == (0, 1)
    assert (request.dead_at, request.delivered_at) == (None, None)


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_a_bad_end_is_told_again_and_stays_bad(state):
    request = a_bad_end(state=state, dead_at=NOW, **SENT)

    redelivery.redeliver_request(request, **HOW)

    assert (request.state, request.due_at, request.replays) == (state, NOW, 1)


def test_a_replay_has_the_same_id_and_says_that_it_is_one():
    request = a_result(state="delivered", **SENT)
    before = due.message_id(request)
    redelivery.redeliver_request(request, **HOW)

    (parcel,) = due.load(due.claim({request.destination_id: 1}, now=NOW))

    assert parcel.message.id == before
    assert ("x-replay", "1") in parcel.message.headers
    assert parcel.is_replay


def test_a_result_that_waits_for_its_next_try_is_brought_forward():
    request = a_result(due_at=NOW + timedelta(hours=5), tries=4)

    redelivery.redeliver_request(request, **HOW)

    assert (request.due_at, request.tries, request.replays) == (NOW, 0, 0)


@pytest.mark.parametrize("state", ["pending", "processing", "delivering"])
def test_a_request_without_a_result_to_send_is_refused(state):
    request = a_result(state=state, due_at=None)

    assert refusal(redelivery.redeliver_request, request) == "invalid_state"


def test_a_client_that_pulls_is_not_sent_anything():
    request = a_request(state="processed")

    assert refusal(redelivery.redeliver_request, request) == "no_destination"


def test_a_request_of_a_delivering_batch_is_refused():
    request = a_result(state="delivered", batch=a_batch(state="delivering"), **SENT)

    assert refusal(redelivery.redeliver_request, request) == "invalid_batch_state"


@pytest.mark.parametrize(
    ("state", "wakes"), [("delivered", True), ("failed", False), ("cancelled", False)]
)
def test_only_a_batch_that_can_close_again_is_woken(state, wakes):
    batch = a_batch(state=state, next_attempt_at=None)
    request = a_bad_end(batch=batch, dead_at=NOW, **SENT)

    redelivery.redeliver_request(request, **HOW)

    assert again(batch).next_attempt_at == (NOW if wakes else None)


@pytest.mark.parametrize("state", ["delivered", "partially_delivered", "delivery_failed"])
def test_all_results_of_a_batch_are_sent_again(state):
    batch = a_batch(state=state, next_attempt_at=None)
    results = [a_result(batch=batch, state="delivered", **SENT) for _ in range(2)]
    failed = a_bad_end(batch=batch, **SENT)

    count = redelivery.redeliver_batch(batch, only_failed=False, **HOW)

    assert count == 3
    assert states_of(batch, *results, failed) == ["delivering", "processed", "processed", "failed"]
    assert again(batch).next_attempt_at == NOW


def test_only_those_given_up_are_sent_again_when_that_is_asked():
    batch = a_batch(state="partially_delivered", next_attempt_at=None)
    well = a_result(batch=batch, state="delivered", **SENT)
    dead = a_result(batch=batch, state="delivery_failed", dead_at=NOW, **SENT)

    assert redelivery.redeliver_batch(batch, only_failed=True, **HOW) == 1

    assert [again(r).due_at for r in (well, dead)] == [None, NOW]


def test_errors_of_a_failed_batch_are_told_again_and_the_batch_stays_failed():
    batch = a_batch(state="failed", next_attempt_at=None)
    a_bad_end(batch=batch, **SENT)

    redelivery.redeliver_batch(batch, only_failed=False, **HOW)

    assert (again(batch).state, again(batch).next_attempt_at) == ("failed", None)


def test_a_batch_with_nothing_to_send_is_refused_and_unchanged():
    batch = a_batch(state="delivered", next_attempt_at=None)
    an_answer(a_request(batch=batch, state="processed"))

    assert refusal(redelivery.redeliver_batch, batch, only_failed=False) == "nothing_to_do"
    assert again(batch).state == "delivered"


_NOT_YET = [
    str(s)
    for s in BatchState
    if s not in ("delivered", "partially_delivered", "delivery_failed", "failed")
]


@pytest.mark.parametrize("state", _NOT_YET)
def test_a_batch_without_results_is_refused(state):
    batch = a_batch(state=state)
    a_result(batch=batch, state="delivered", **SENT)

    assert refusal(redelivery.redeliver_batch, batch, only_failed=False) == "invalid_batch_state"
    assert Request.objects.get().due_at is None
    assert Batch.objects.get().state == state


def test_those_given_up_of_a_delivering_batch_go_again_and_it_is_looked_at_anew():
    batch = a_batch(state="delivering", next_attempt_at=NOW + timedelta(days=1))
    dead = a_result(batch=batch, state="delivery_failed", dead_at=NOW, **SENT)

    assert redelivery.redeliver_batch(batch, only_failed=True, **HOW) == 1

    assert (again(dead).due_at, again(batch).state) == (NOW, "delivering")
    assert (again(batch).next_attempt_at, again(batch).fence) == (NOW, batch.fence + 1)


def test_a_batch_that_is_being_closed_while_one_goes_again_is_not_closed(monkeypatch):
    batch = a_batch(state="delivering", next_attempt_at=NOW)
    dead = a_result(batch=batch, state="delivery_failed", dead_at=NOW, **SENT)
    count = closing.tally

    def counted_too_early(row):
        counts = count(row)
        redelivery.redeliver_request(Request.objects.get(pk=dead.pk), **HOW)
        return counts

    monkeypatch.setattr(closing, "tally", counted_too_early)
    (row,) = Batch.objects.due(NOW, BatchState.DELIVERING)
    with pytest.raises(Stale):
        closing._close(row, NOW)

    assert (again(batch).state, again(batch).next_attempt_at) == ("delivering", NOW)


def test_a_deleted_destination_is_sent_nothing():
    request = a_result(a_destination(deleted_at=NOW), state="delivered", **SENT)

    assert refusal(redelivery.redeliver_request, request) == "no_destination"
