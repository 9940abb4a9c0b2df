"""The end of a batch is read off its requests, once nothing of it is on its way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import closing
from batching.lifecycle import Actor
from batching.models import Batch, Request
from delivery import redelivery
from tests.batching.rows import NOW, a_batch, a_destination, a_request, an_answer, log_of, states_of

pytestmark = pytest.mark.django_db

HOW = {"by": Actor(name="someone"), "reason": "asked", "now": NOW}


@pytest.mark.parametrize(
    ("states", "end"),
    [
        (["delivered", "delivered"], "delivered"),
        (["delivered", "delivery_failed"], "partially_delivered"),
        (["delivered", "failed"], "partially_delivered"),
        (["delivered", "expired"], "partially_delivered"),
        (["delivered", "cancelled"], "delivered"),
        (["delivery_failed", "delivery_failed"], "delivery_failed"),
        (["delivery_failed", "failed"], "delivery_failed"),
        (["processed"], "delivered"),
        ([], "delivered"),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, list) else value,
)
def test_the_end_of_a_batch_follows_from_its_requests(states, end):
    batch = a_batch(state="delivering", next_attempt_at=NOW)
    for state in states:
        a_request(batch=batch, state=state)

    closing.close_due(NOW)

    batch.refresh_from_db()
    assert (batch.state, batch.next_attempt_at) == (end, None)


def test_what_became_of_the_requests_is_counted_at_the_end():
    batch = a_batch(state="delivering", next_attempt_at=NOW)
    for state in ["delivered", "delivered", "delivery_failed", "failed"]:
        a_request(batch=batch, state=state)

    closing.close_due(NOW)

    batch.refresh_from_db()
    assert (batch.answered_count, batch.failed_count) == (3, 1)
    assert "2 delivered, 1 not, 1 failed" in log_of(batch)[-1][4]


def test_a_batch_stays_open_while_a_result_is_on_its_way_and_is_looked_at_less_and_less():
    batch = a_batch(state="delivering", next_attempt_at=NOW, state_changed_at=NOW)
    a_request(batch=batch, state="delivered")
    a_request(batch=batch, state="failed", due_at=NOW, destination=a_destination())
    looks = []

    for age in (timedelta(0), timedelta(minutes=10), timedelta(days=1)):
        Batch.objects.update(next_attempt_at=NOW)
        closing.close_due(NOW + age)
        batch.refresh_from_db()
        looks.append((batch.state, (batch.next_attempt_at - NOW - age).total_seconds()))

    assert looks == [("delivering", 2), ("delivering", 60), ("delivering", 300)]


def test_one_result_sent_again_makes_a_partially_delivered_batch_delivered():
    batch = a_batch(state="partially_delivered", next_attempt_at=None)
    a_request(batch=batch, state="delivered")
    dead = a_request(batch=batch, state="delivery_failed", dead_at=NOW, destination=a_destination())
    an_answer(dead)

    redelivery.redeliver_request(dead, **HOW)
    closing.close_due(NOW)
    assert states_of(batch) == ["partially_delivered"]
    Request.objects.filter(pk=dead.pk).update(state="delivered", due_at=None)
    closing.close_due(NOW + timedelta(minutes=10))

    assert states_of(batch) == ["delivered"]
    assert [move[1] for move in log_of(batch)] == ["redeliver", "delivered"]


def test_a_replay_that_changes_nothing_leaves_no_trace_on_its_batch():
    batch = a_batch(state="delivered", next_attempt_at=NOW)
    a_request(batch=batch, state="delivered")

    closing.close_due(NOW)

    batch.refresh_from_db()
    assert (batch.state, batch.next_attempt_at, log_of(batch)) == ("delivered", None, [])
