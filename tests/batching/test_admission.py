"""Which batch may go to the provider: never more tokens than the lane may hold there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import Sum

from batching import admission, lifecycle
from batching.models import Account, Batch
from tests.batching.rows import NOW, a_batch, a_lane, an_account, in_threads, log_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def lane():
    return a_lane(token_limit=100)


def waiting(lane, tokens, state="uploaded", **fields):
    fields = {"next_attempt_at": NOW} | fields
    return a_batch(lane=lane, state=state, token_estimate=tokens, **fields)


def test_an_admitted_batch_carries_its_intent_and_a_lease(lane):
    batch = waiting(lane, 10)

    assert list(admission.next_up(NOW)) == [batch]

    batch.refresh_from_db()
    assert (batch.state, batch.create_started_at, batch.fence) == ("submitting", NOW, 1)
    assert batch.next_attempt_at == NOW + admission.CREATE_LEASE


@pytest.mark.parametrize(
    ("held", "tokens", "goes"),
    [(0, 100, True), (60, 40, True), (60, 41, False), (0, 101, True), (1, 101, False)],
    ids=["empty-lane", "just-fits", "one-too-many", "too-big-goes-alone", "too-big-not-beside"],
)
def test_a_batch_goes_when_its_tokens_fit(lane, held, tokens, goes):
    if held:
        waiting(lane, held, state="processing")
    batch = waiting(lane, tokens)

    assert (batch in list(admission.next_up(NOW))) is goes


@pytest.mark.parametrize("state", ["submitting", "processing", "cancelling"])
def test_what_the_provider_may_hold_counts(lane, state):
    holder = waiting(lane, 60, state=state)
    batch = waiting(lane, 60)

    assert list(admission.next_up(NOW)) == []

    batch.refresh_from_db()
    assert batch.state == "waiting_for_capacity"
    assert batch.wait_reason == (
        f"waiting for 60 of 100 enqueued tokens; 60 are held by batch {holder.pk}"
    )
    assert (batch.waiting_since, batch.next_attempt_at) == (NOW, NOW)


@pytest.mark.parametrize("state", ["uploading", "completed", "downloading", "delivering", "failed"])
def test_what_the_provider_no_longer_holds_does_not_count(lane, state):
    waiting(lane, 60, state=state, next_attempt_at=None)
    batch = waiting(lane, 60)

    assert list(admission.next_up(NOW)) == [batch]


def test_tokens_are_counted_over_endpoints_of_one_model_but_not_over_models_or_accounts(lane):
    waiting(lane, 60, state="processing")
    same_model = a_lane(endpoint="/v1/chat/completions", token_limit=100)
    other_model = a_lane("gpt-4o", token_limit=100)
    other_account = a_lane(account=an_account("other"), token_limit=100)
    blocked, *free = [waiting(x, 60) for x in (same_model, other_model, other_account)]

    admitted = list(admission.next_up(NOW))

    assert sorted(b.pk for b in admitted) == sorted(b.pk for b in free)
    assert blocked not in admitted


def test_the_oldest_goes_first_and_a_younger_one_that_fits_may_overtake(lane):
    waiting(lane, 30, state="processing")
    first, too_big, last = waiting(lane, 40), waiting(lane, 40), waiting(lane, 30)

    assert list(admission.next_up(NOW)) == [first, last]
    assert too_big not in list(admission.next_up(NOW + timedelta(minutes=1)))


def test_waiting_since_is_kept_while_it_waits(lane):
    waiting(lane, 60, state="processing")
    batch = waiting(lane, 60)
    list(admission.next_up(NOW))

    list(admission.next_up(NOW + timedelta(minutes=1)))

    batch.refresh_from_db()
    assert batch.waiting_since == NOW
    assert len(log_of(batch)) == 1


def test_a_batch_is_not_looked_at_before_its_time(lane):
    waiting(lane, 10, state="waiting_for_capacity", next_attempt_at=NOW + timedelta(seconds=1))

    assert list(admission.next_up(NOW)) == []


def test_nothing_goes_through_an_account_that_is_switched_off(lane):
    Account.objects.update(is_enabled=False)
    batch = waiting(lane, 10)

    assert list(admission.next_up(NOW)) == []

    batch.refresh_from_db()
    assert batch.wait_reason == "account sandbox is switched off"


def test_whoever_claimed_the_batch_before_finds_another_fence(lane):
    batch = waiting(lane, 10)
    stale = Batch.objects.get(pk=batch.pk)

    list(admission.next_up(NOW))

    with pytest.raises(lifecycle.Stale):
        lifecycle.move(stale, "submit", reason="late")


@pytest.mark.django_db(transaction=True)
def test_six_workers_at_once_never_admit_more_than_the_limit():
    lane = a_lane(token_limit=100)
    for _ in range(12):
        waiting(lane, 30)

    admitted = in_threads(6, lambda _place: list(admission.next_up(NOW)))

    assert sum(len(some) for some in admitted) == 3
    held = Batch.objects.filter(state="submitting").aggregate(tokens=Sum("token_estimate"))
    assert held["tokens"] == 90


def test_a_worker_that_dies_leaves_one_intent_and_the_others_as_they_are(lane):
    first, second = waiting(lane, 10), waiting(lane, 10)

    admitted = next(admission.next_up(NOW))

    second.refresh_from_db()
    assert (admitted, second.state) == (first, "uploaded")
