"""What ended becomes an event for each project that asked, once, whatever breaks in between."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from batching import settling, steering, submission
from batching.lifecycle import CLOCK, Actor, move
from batching.models import Request, Submission
from delivery import event_making
from delivery.event_models import Event, EventDelivery, EventSubscription, PendingEvent
from tests.batching.rows import NOW, a_batch, a_project, a_request, in_threads
from tests.delivery.subscriptions import a_subscription

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(seconds=10)
OPERATOR = Actor(name="operator")


def told(event=None):
    """Return what is sent of an event, of the only one when none is given."""
    return json.loads(bytes((event or Event.objects.get()).payload))


def a_settled_batch(*states, how="complete", **fields):
    """Return a batch whose requests ended so, and that was settled after the provider's end."""
    batch = a_batch(state="processing", **fields)
    requests = [a_request(batch=batch, state=state) for state in states]
    move(batch, how, reason="the provider's end", now=NOW, next_attempt_at=NOW)
    move(batch, "download", reason="files", now=NOW)
    settling.finish(batch, NOW, by=CLOCK)
    return batch, requests


def test_a_settled_batch_is_told_with_its_counts_and_links(settings):
    settings.BATCHER_PUBLIC_URL = "https://batcher.example"
    place = a_subscription().destination
    batch, _ = a_settled_batch("processed", "delivered", "failed", "expired")

    assert event_making.make_due(LATER) == 1

    told_ = told()
    counts = {"total": 4, "succeeded": 2, "failed": 1, "expired": 1, "cancelled": 0}
    assert (told_["type"], told_["timestamp"]) == ("batch.completed", "2026-11-21T12:00:00.000Z")
    assert (told_["data"]["id"], told_["data"]["requests"]) == (batch.key, counts)
    base = "https://batcher.example/api"
    assert told_["data"]["links"]["self"] == f"{base}/batches/{batch.key}"
    delivery = EventDelivery.objects.get()
    assert (delivery.destination, delivery.due_at) == (place, LATER)
    assert not PendingEvent.objects.exists()


@pytest.mark.parametrize(
    ("how", "type_"),
    [
        ("complete", "batch.completed"),
        ("expire", "batch.expired"),
        ("cancelled_by_provider", "batch.cancelled"),
    ],
)
def test_a_settled_batch_is_named_for_the_providers_end(how, type_):
    a_subscription()
    a_settled_batch("processed", how=how)

    event_making.make_due(LATER)

    assert [e.type for e in Event.objects.all()] == [type_]


def test_a_batch_that_fails_takes_its_requests_along_in_the_counts():
    a_subscription("batch.failed")
    batch = a_batch(state="submitting")
    a_request(batch=batch, state="processing")

    submission.fail(batch, "the provider refused it", NOW)
    event_making.make_due(LATER)

    data = told()["data"]
    assert (data["state"], data["reason"]) == ("failed", "the provider refused it")
    assert data["requests"]["failed"] == 1


def test_a_batch_that_is_stopped_before_it_is_sent_is_told_as_cancelled():
    a_subscription()
    batch = a_batch(state="uploaded")
    a_request(batch=batch, state="pending")

    steering.cancel_batch(batch, by=OPERATOR, reason="no", now=NOW)
    event_making.make_due(LATER)

    assert (told()["type"], told()["data"]["requests"]["cancelled"]) == ("batch.cancelled", 1)


def test_each_project_is_told_of_its_own_requests_only():
    ours, theirs = a_project("ours"), a_project("theirs")
    a_subscription(project=ours)
    batch = a_batch(state="processing")
    a_request(batch=batch, state="processed", project=ours)
    for _ in range(2):
        a_request(batch=batch, state="processed", project=theirs)

    move(batch, "complete", reason="done", now=NOW)
    move(batch, "download", reason="files", now=NOW)
    move(batch, "settled", reason="done", now=NOW)
    event_making.make_due(LATER)

    assert Event.objects.get().project == ours
    assert told()["data"]["requests"]["total"] == 1


def test_two_destinations_get_one_event_of_one_id():
    a_subscription()
    a_subscription("batch.completed")
    a_subscription("batch.failed")
    a_settled_batch("processed")

    event_making.make_due(LATER)

    assert EventDelivery.objects.filter(event=Event.objects.get()).count() == 2


def test_nothing_is_noted_that_nobody_asked_for():
    a_subscription("batch.failed", "submission.completed")

    a_settled_batch("processed")

    assert not PendingEvent.objects.exists()


def test_an_end_that_is_rolled_back_is_no_event():
    a_subscription()
    batch = a_batch(state="downloading")

    with transaction.atomic():
        move(batch, "settled", reason="done", now=NOW)
        assert PendingEvent.objects.count() == 1
        transaction.set_rollback(True)

    assert not PendingEvent.objects.exists()


def test_a_restarted_batch_is_told_of_twice_under_two_ids():
    a_subscription()
    batch, _ = a_settled_batch("failed", "failed")
    event_making.make_due(LATER)

    steering.restart_batch(batch, by=OPERATOR, reason="again", now=NOW)
    submission.fail(batch, "again", NOW)
    event_making.make_due(LATER)

    assert [e.type for e in Event.objects.all()] == ["batch.failed"] * 2
    assert len(set(Event.objects.values_list("key", flat=True))) == 2


class TestSubmissions:
    @pytest.fixture
    def upload(self):
        a_subscription("submission.completed")
        return Submission.objects.create(
            project=a_project(), accepted=2, rejected=1, created_at=NOW, finished_at=NOW
        )

    def looked_at(self, seconds):
        """Let the sweep run so much later than the upload was noted."""
        return event_making.make_due(timezone.now() + timedelta(seconds=seconds))

    def test_an_upload_is_told_when_its_last_request_has_its_end(self, upload):
        one, two = (a_request(submission=upload, state="processing") for _ in range(2))
        Request.objects.filter(pk=one.pk).update(state="processed", settled_at=NOW)
        self.looked_at(3)
        assert not Event.objects.exists()

        Request.objects.filter(pk=two.pk).update(state="failed", settled_at=LATER)
        self.looked_at(3600)

        data = told()["data"]
        assert told()["timestamp"] == "2026-11-21T12:00:10.000Z"
        assert (data["id"], data["status"], data["batch"]) == (upload.key, "completed", None)
        assert (data["accepted"], data["rejected"]) == (2, 1)
        assert (data["requests"]["succeeded"], data["requests"]["failed"]) == (1, 1)

    def test_one_without_any_request_of_its_own_is_told_too(self, upload):
        self.looked_at(3)

        assert told()["data"]["requests"]["total"] == 0

    def test_an_upload_that_broke_off_is_told_as_such_a_day_later(self, upload):
        Submission.objects.filter(pk=upload.pk).update(finished_at=None, created_at=timezone.now())
        self.looked_at(3600)
        assert not Event.objects.exists()

        self.looked_at(2 * 86_400)

        assert told()["data"]["status"] == "broken_off"

    def test_a_clients_batch_is_told_by_its_own_end_and_name(self, upload):
        ends = {"kind": "openai", "completed_at": None}
        Submission.objects.filter(pk=upload.pk).update(**ends)
        self.looked_at(3600)
        assert not Event.objects.exists()

        Submission.objects.filter(pk=upload.pk).update(cancelled_at=NOW)
        self.looked_at(7200)

        data = told()["data"]
        assert (data["status"], data["batch"]) == ("cancelled", upload.key.replace("sub", "batch"))

    def test_what_is_open_when_a_project_subscribes_is_told_of(self):
        done = Submission.objects.create(project=a_project(), created_at=NOW, finished_at=NOW)
        running = Submission.objects.create(project=a_project(), created_at=NOW, finished_at=NOW)
        a_request(submission=done, state="processed")
        a_request(submission=running, state="pending")

        subscription = a_subscription()
        subscription.save()

        assert PendingEvent.objects.get().submission == running

    def test_one_that_nobody_wants_any_more_is_dropped(self, upload):
        EventSubscription.objects.all().delete()

        self.looked_at(3)

        assert not Event.objects.exists()
        assert not PendingEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_make_each_event_once():
    a_subscription()
    for _ in range(6):
        a_settled_batch("processed")

    in_threads(2, lambda _place: event_making.make_due(LATER))

    assert Event.objects.count() == EventDelivery.objects.count() == 6
