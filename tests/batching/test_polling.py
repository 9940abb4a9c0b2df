"""What the provider says of a batch: progress, trouble, a queue that is full, an end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import collection
from batching.models import Batch, Request
from batching.providers.base import Counts, NotFound, Status
from tests.batching.rows import NOW, a_batch_at_provider, states_of

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


@pytest.fixture
def batch(provider):
    return a_batch_at_provider(provider, create_started_at=NOW - 10 * MINUTE)[0]


@pytest.fixture
def requests(batch):
    return list(batch.requests.order_by("pk"))


def again(row):
    return type(row).objects.get(pk=row.pk)


def test_progress_is_noted_and_the_next_look_is_set(batch, provider, settings):
    settings.BATCHER_POLL_SECONDS = 60
    counts = Counts(total=3, completed=1, failed=0)
    provider.say(batch.provider_batch_id, raw_status="in_progress", counts=counts)

    assert collection.poll_due(NOW) == 1

    batch = again(batch)
    assert (batch.state, batch.provider_status) == ("processing", "in_progress")
    assert (batch.provider_total, batch.provider_completed, batch.provider_failed) == (3, 1, 0)
    assert batch.polled_at == NOW
    assert batch.next_attempt_at - NOW == pytest.approx(MINUTE, rel=0.11)


def test_figures_that_are_missing_do_not_erase_known_ones(batch, provider):
    provider.say(batch.provider_batch_id, counts=Counts(total=3, completed=2))
    collection.poll_due(NOW)
    provider.say(batch.provider_batch_id, counts=Counts())

    collection.poll_due(NOW + timedelta(hours=1))

    assert (again(batch).provider_total, again(batch).provider_completed) == (3, 2)


def test_an_unknown_status_is_kept_and_treated_as_running(batch, provider):
    provider.say(batch.provider_batch_id, status=Status.UNKNOWN, raw_status="pondering")

    collection.poll_due(NOW)

    assert (again(batch).state, again(batch).provider_status) == ("processing", "pondering")
    assert again(batch).next_attempt_at > NOW


def test_a_failed_look_is_tried_again_and_changes_nothing_else(batch, provider):
    provider.refuse("retrieve", NotFound("no such batch"))

    collection.poll_due(NOW)

    assert (again(batch).state, again(batch).tries) == ("processing", 1)
    assert (again(batch).last_error, again(batch).wait_reason) == ("no such batch", "")
    assert again(batch).next_attempt_at == NOW + timedelta(seconds=5)


def test_the_accounts_own_pace_comes_before_the_settings(batch, provider, settings):
    batch.lane.account.poll_seconds = 7
    batch.lane.account.save()

    collection.poll_due(NOW)

    slowest = timedelta(seconds=7 * settings.BATCHER_POLL_SLOWDOWN)
    assert again(batch).next_attempt_at - NOW == pytest.approx(slowest, rel=0.11)


def test_a_batch_refused_for_what_all_share_fails_with_its_requests(batch, requests, provider):
    provider.refuse_batch(batch.provider_batch_id, "model_not_found")

    collection.poll_due(NOW)

    assert again(batch).state == "failed"
    assert again(batch).last_error == "the provider refused it: model_not_found: no"
    assert states_of(*requests) == ["failed"] * 3


def test_requests_that_ended_before_are_left_alone_when_a_batch_fails(batch, requests, provider):
    Request.objects.filter(pk=requests[0].pk).update(state="delivered")
    provider.refuse_batch(batch.provider_batch_id, "model_not_found")

    collection.poll_due(NOW)

    assert states_of(*requests) == ["delivered", "failed", "failed"]


# The provider's queue is full


def test_a_full_queue_is_waited_for_longer_each_time_until_it_is_enough(batch, provider):
    waits = []
    for _ in range(6):
        Batch.objects.update(state="processing", next_attempt_at=NOW, provider_batch_id="batch_1")
        Request.objects.update(state="processing")
        provider.refuse_batch("batch_1", "token_limit_exceeded")
        collection.poll_due(NOW)
        if (at := again(batch).next_attempt_at) is not None:
            waits.append((at - NOW) / MINUTE)

    assert waits == [5, 10, 20, 40, 80]
    assert again(batch).state == "failed"
    assert "token limit retries exhausted after 5" in again(batch).last_error


def test_backing_off_keeps_the_file_and_puts_the_requests_back(batch, requests, provider):
    provider.refuse_batch(batch.provider_batch_id, "token_limit_exceeded")

    collection.poll_due(NOW)

    batch = again(batch)
    assert (batch.state, batch.provider_batch_id) == ("waiting_for_capacity", "")
    assert (batch.input_file_id, batch.token_limit_tries) == ("file_in", 1)
    assert batch.wait_reason.endswith("next try at 12:05 UTC")
    assert states_of(*requests) == ["pending"] * 3
    assert {(r.attempt, r.batch_id) for r in Request.objects.all()} == {(1, batch.pk)}


def test_backing_off_wakes_no_request_that_was_taken_back(batch, requests, provider):
    Request.objects.filter(pk=requests[0].pk).update(state="cancelled")
    provider.refuse_batch(batch.provider_batch_id, "token_limit_exceeded")

    collection.poll_due(NOW)

    assert states_of(*requests) == ["cancelled", "pending", "pending"]


def test_the_count_of_full_queues_is_kept_until_there_is_progress(batch, provider):
    Batch.objects.update(token_limit_tries=3)
    collection.poll_due(NOW)
    assert again(batch).token_limit_tries == 3

    provider.say(batch.provider_batch_id, counts=Counts(total=3, completed=1))
    collection.poll_due(NOW + timedelta(hours=1))

    assert again(batch).token_limit_tries == 0


@pytest.mark.parametrize("code", ["token_limit_exceeded", "invalid_json_line"])
def test_a_batch_refused_while_it_was_to_be_cancelled_is_cancelled(batch, requests, provider, code):
    Batch.objects.update(state="cancelling", cancel_asked=True)
    provider.refuse_batch(batch.provider_batch_id, code)

    collection.poll_due(NOW)
    collection.collect_due(NOW)

    assert (again(batch).state, again(batch).next_attempt_at) == ("cancelled", None)
    assert states_of(*requests) == ["cancelled"] * 3
