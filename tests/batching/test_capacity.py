"""Room at the provider: what holds it, what refuses, and what is learned."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import capacity
from batching.figures import figures
from batching.lifecycle import BatchState
from batching.models import Account, Answer, Capacity, Lane
from tests.batching.rows import NOW, a_batch, a_lane, a_request

pytestmark = pytest.mark.django_db


def lane(**fields):
    return a_lane(**({"token_limit": 1_000} | fields))


def held_batch(in_lane, tokens=400, state=BatchState.PROCESSING, **fields):
    return a_batch(lane=in_lane, state=state, token_estimate=tokens, **fields)


def waiting(in_lane, tokens=400, **fields):
    return held_batch(in_lane, tokens, BatchState.WAITING_FOR_CAPACITY, **fields)


def refusal(batch, now):
    found = capacity.Room(batch.lane.account, now).refusal(batch)
    return found.reason if found else ""


def tokens_of(one):
    return figures([one], NOW)[one.pk].tokens


def answered(batch, estimate, real):
    request = a_request(batch=batch, lane=batch.lane, token_estimate=estimate)
    Answer.objects.create(request=request, attempt=1, batch=batch, line=b"{}", input_tokens=real)


@pytest.mark.parametrize("state", ["submitting", "processing", "cancelling"])
def test_what_the_provider_may_hold_takes_room(state):
    one = lane()
    held_batch(one, 700, state)
    said = refusal(waiting(one, 400), NOW)
    assert said.startswith("waiting for 400 of 1,000 enqueued tokens; 700 are held by batch ")


@pytest.mark.parametrize("state", ["building", "uploading", "uploaded", "downloading", "delivered"])
def test_what_is_here_takes_no_room(state):
    one = lane()
    held_batch(one, 700, state)
    assert refusal(waiting(one, 400), NOW) == ""


def test_lanes_of_one_model_share_their_room():
    one = lane()
    held_batch(one, 700)
    other = Lane.objects.create(
        account=one.account, model=one.model, endpoint="/v1/embeddings", token_limit=1_000
    )
    assert "700 are held" in refusal(waiting(other, 400), NOW)


def test_a_batch_larger_than_the_limit_goes_alone():
    one = lane()
    assert refusal(waiting(one, 5_000), NOW) == ""


def test_a_lane_has_no_more_batches_than_it_may():
    one = lane(max_batches_in_flight=1)
    held_batch(one, 1)
    assert "its lane may have 1 batches" in refusal(waiting(one, 1), NOW)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_batches_in_flight": 1}, "its account may have 1 batches"),
        ({"max_requests_in_flight": 15}, "waiting for 10 of 15 requests"),
        ({"max_creates_per_hour": 1}, "its account may create 1 batches an hour"),
    ],
)
def test_an_account_has_no_more_than_it_may(limits, said):
    one = lane()
    Account.objects.filter(pk=one.account_id).update(**limits)
    one.account.refresh_from_db()
    started = {"create_started_at": NOW - timedelta(minutes=5)}
    held_batch(one, 1, request_count=10, **started)
    assert said in refusal(waiting(one, 1, request_count=10), NOW)


def test_an_hour_later_another_batch_may_be_created():
    one = lane()
    Account.objects.filter(pk=one.account_id).update(max_creates_per_hour=1)
    one.account.refresh_from_db()
    held_batch(one, 1, create_started_at=NOW - timedelta(minutes=61))
    assert refusal(waiting(one, 1), NOW) == ""


def test_a_refusal_lowers_the_limit_to_what_was_taken():
    one = lane()
    held_batch(one, 500)
    capacity.refused(held_batch(one, 400), NOW)
    found = tokens_of(one)
    assert (found.learned, found.limit, found.source, found.configured) == (
        720,
        720,
        "learned",
        1_000,
    )


def test_clean_runs_raise_it_again_but_not_to_what_was_refused_lately():
    one = lane()
    capacity.refused(held_batch(one, 800), NOW)
    for _ in range(9):
        capacity.completed(held_batch(one, 1), NOW)
    assert tokens_of(one).learned == 760
    for _ in range(6):
        capacity.completed(held_batch(one, 1), NOW + timedelta(days=8))
    found = tokens_of(one)
    assert (found.learned, found.limit, found.source) == (None, 1_000, "lane")


def test_the_tables_figure_is_exceeded_only_while_batches_wait():
    one = lane(token_limit=None)
    table = tokens_of(one).limit
    for _ in range(3):
        capacity.completed(held_batch(one, 1), NOW)
    assert tokens_of(one).limit == table
    waiting(one)
    for _ in range(3):
        capacity.completed(held_batch(one, 1), NOW)
    assert tokens_of(one).limit > table


def test_what_answers_really_took_narrows_the_estimate():
    one = lane()
    done = a_batch(lane=one, state="delivered")
    answered(done, 30_000, 15_000)
    capacity.completed(done, NOW)
    assert tokens_of(one).ratio == 0.5
    assert capacity.tokens_of(waiting(one, 1_000)) == 525


def test_few_answers_teach_nothing():
    one = lane()
    done = a_batch(lane=one, state="delivered")
    answered(done, 300, 100)
    capacity.completed(done, NOW)
    assert tokens_of(one).ratio is None
    assert capacity.tokens_of(waiting(one, 1_000)) == 1_000


def test_what_is_frozen_learns_nothing():
    one = lane()
    Capacity.objects.create(account=one.account, model=one.model, is_frozen=True)
    capacity.refused(held_batch(one, 800), NOW)
    capacity.completed(held_batch(one, 1), NOW)
    assert tokens_of(one).learned is None
