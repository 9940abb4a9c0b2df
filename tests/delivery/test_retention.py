"""Old rows go, oldest first and a bounded number at a time; young ones stay."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from batching.lifecycle import Actor
from batching.models import Run
from delivery import due, redelivery, retention
from delivery.models import Attempt, IntakeStatus, Rejection, Replay
from tests.batching.rows import NOW, a_destination, a_request
from tests.delivery.results import a_result

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def attempts(*ages):
    """Make attempts at one request that ended so long ago."""
    place = a_destination()
    row = a_request(destination=place)
    return Attempt.objects.bulk_create(
        Attempt(request=row, destination=place, number=1, outcome="timeout", ended_at=NOW - age)
        for age in ages
    )


def a_rejection(age):
    facts = {"queue": "in", "project_name": "p", "code": "c", "detail": "d", "faults": "f"}
    return Rejection.objects.create(received_at=NOW - age, size_bytes=1, beginning="", **facts)


def test_attempts_go_after_their_days_and_not_before(settings):
    settings.BATCHER_KEEP_ATTEMPTS_DAYS = 30
    _, _, third = attempts(31 * DAY, 30 * DAY + timedelta(seconds=1), 30 * DAY)

    assert retention.sweep(NOW) == 2
    assert retention.sweep(NOW) == 0

    assert list(Attempt.objects.all()) == [third]


def test_refused_messages_and_silent_queues_have_days_of_their_own(settings):
    settings.BATCHER_KEEP_REJECTIONS_DAYS = 7
    a_rejection(8 * DAY)
    young = a_rejection(6 * DAY)
    for queue, age in (("old", 8 * DAY), ("read", timedelta())):
        IntakeStatus.objects.create(queue=queue, state="stopped", since=NOW, seen_at=NOW - age)

    assert retention.sweep(NOW) == 2

    assert list(Rejection.objects.all()) == [young]
    assert IntakeStatus.objects.get().queue == "read"


def test_a_result_that_was_given_up_long_ago_can_still_be_sent_again():
    past = NOW - 400 * DAY
    row = a_result(state="delivery_failed", due_at=None, dead_at=past, settled_at=past)

    retention.sweep(NOW)
    redelivery.redeliver_request(row, by=Actor(name="someone"), reason="at last", now=NOW)

    (parcel,) = due.load(due.claim({row.destination_id: 1}, now=NOW))
    assert b'"output"' in parcel.message.body


def test_replays_go_once_they_have_ended_for_as_long_as_attempts_are_kept(settings):
    settings.BATCHER_KEEP_ATTEMPTS_DAYS = 30
    fields = {"per_second": 1, "created_at": NOW - 90 * DAY}
    Replay.objects.create(state="done", ended_at=NOW - 31 * DAY, **fields)
    young = Replay.objects.create(state="stopped", ended_at=NOW - 29 * DAY, **fields)
    slow = Replay.objects.create(**fields)

    assert retention.sweep(NOW) == 1

    assert set(Replay.objects.all()) == {young, slow}


def test_runs_go_like_replays():
    fields = {"rows_of": "batching.batch", "move": "pause", "created_at": NOW - 90 * DAY}
    Run.objects.create(state="done", ended_at=NOW - 90 * DAY, **fields)
    running = Run.objects.create(**fields)

    assert retention.sweep(NOW) == 1

    assert Run.objects.get() == running


def test_one_that_is_old_among_young_ones_is_found_with_the_first_of_them(monkeypatch):
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    attempts(40 * DAY, 40 * DAY, timedelta(), 40 * DAY, timedelta())

    assert retention.sweep(NOW) == 3


def test_no_statement_deletes_more_than_its_share(monkeypatch):
    monkeypatch.setattr(retention, "_AT_ONCE", 10)
    attempts(*[31 * DAY] * 25)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert retention.sweep(NOW) == 25

    deletes = [q["sql"] for q in queries if q["sql"].startswith('DELETE FROM "delivery_attempt"')]
    assert len(deletes) == 3


def test_a_sweep_ends_in_time_and_the_next_one_goes_on(monkeypatch):
    monkeypatch.setattr(retention, "_AT_ONCE", 10)
    monkeypatch.setattr(retention, "_RUN_S", -1.0)
    attempts(*[31 * DAY] * 15)

    assert retention.sweep(NOW) == 10
    assert retention.sweep(NOW) == 5
