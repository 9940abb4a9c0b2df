"""Events on their way: real receivers and a real broker, with the retries and guards of results."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pika
import pytest
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from batching.lifecycle import Actor
from batching.models.projects import new_signing_secret
from batching.steering import Refused
from delivery import events, retention
from delivery.event_models import Event, EventAttempt, EventDelivery
from delivery.outcome import Code
from tests.batching.rows import a_destination, in_threads
from tests.delivery.receivers import answering
from tests.delivery.results import listening
from tests.delivery.subscriptions import an_event_due

pytestmark = pytest.mark.django_db(transaction=True)

OK = answering("204 No Content")


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


def at(receiver, **fields):
    return a_destination(url=receiver.url("/hook"), secret=new_signing_secret(), **fields)


def now_due(destination, **fields):
    return an_event_due(destination, at=timezone.now() - timedelta(seconds=1), **fields)


def replay(delivery):
    by = Actor(name="operator")
    return events.replay(delivery, by=by, reason="asked for", now=timezone.now())


def sent_to(act, **fields):
    """Send one event to such a receiver; return its delivery as it is then, and the receiver."""
    with listening(act) as receiver:
        delivery = now_due(at(receiver, **fields))
        events.send_due()
    delivery.refresh_from_db()
    return delivery, receiver


def test_an_event_arrives_signed_once_and_byte_for_byte():
    delivery, receiver = sent_to(OK)

    (request,) = receiver.requests
    Webhook(delivery.destination.secret).verify(request.body, request.headers)
    assert request.headers["webhook-id"] == delivery.event.key
    assert request.headers["x-batcher-event"] == "batch.completed"
    assert request.body == bytes(Event.objects.get().payload)
    assert (delivery.standing, delivery.tries) == ("delivered", 1)
    assert events.send_due() == 0


def test_a_receiver_that_is_overloaded_is_tried_again_with_the_same_id():
    delivery, first = sent_to(answering("503 Service Unavailable", "retry-after: 120"))
    attempt = EventAttempt.objects.get()
    assert (attempt.status, attempt.next_at) == (503, delivery.due_at)
    assert delivery.due_at > timezone.now() + timedelta(seconds=110)

    EventDelivery.objects.update(due_at=timezone.now())
    with listening(OK) as second:
        type(delivery.destination).objects.update(url=second.url())
        events.send_due()

    ids = {r.headers["webhook-id"] for r in (*first.requests, *second.requests)}
    assert len(ids) == 1
    assert [a.number for a in EventAttempt.objects.all()] == [1, 2]


def test_a_destinations_own_schedule_ends_in_a_dead_event_that_can_be_sent_again():
    delivery, _ = sent_to(answering("500 Oops"), retry_delays_s=[0])
    assert (delivery.standing, delivery.due_at) == ("dead", None)

    replay(delivery)
    with listening(OK) as receiver:
        type(delivery.destination).objects.update(url=receiver.url())
        assert events.send_due() == 1

    delivery.refresh_from_db()
    assert receiver.requests[0].headers["x-replay"] == "1"
    assert receiver.requests[0].headers["webhook-id"] == delivery.event.key
    assert (delivery.standing, delivery.dead_at) == ("delivered", None)
    assert EventAttempt.objects.last().is_replay


def test_what_is_under_way_is_not_sent_again_beside():
    delivery = now_due(a_destination())

    with pytest.raises(Refused):
        replay(delivery)


def test_gone_disables_the_destination():
    delivery, _ = sent_to(answering("410 Gone"))

    assert delivery.standing == "dead"
    assert delivery.destination.disabled_at


@pytest.mark.parametrize("held", ["paused_at", "disabled_at"])
def test_what_a_held_destination_is_owed_waits_and_is_kept(held):
    old = timezone.now() - timedelta(days=99)
    delivery = an_event_due(a_destination(**{held: timezone.now()}), at=old)
    Event.objects.update(created_at=old)

    assert events.send_due() == 0
    assert retention.sweep(timezone.now()) == 0

    type(delivery.destination).objects.update(**{held: None})
    assert events.send_due() == 1


def test_old_events_go_with_their_attempts_once_nothing_waits():
    delivery, _ = sent_to(OK)
    Event.objects.update(created_at=timezone.now() - timedelta(days=31))

    assert retention.sweep(timezone.now()) == 1

    assert not EventDelivery.objects.filter(pk=delivery.pk).exists()
    assert not EventAttempt.objects.exists()


def test_an_address_that_is_shut_is_not_reached(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = []
    delivery, receiver = sent_to(OK)

    assert EventAttempt.objects.get().outcome == Code.BLOCKED_ADDRESS
    assert (receiver.connections, delivery.standing) == (0, "dead")


def test_one_that_breaks_us_holds_up_no_other():
    with listening(OK) as receiver:
        now_due(a_destination(url=receiver.url("/a"), headers="no JSON"))
        well = now_due(at(receiver))
        events.send_due()

    well.refresh_from_db()
    broken = EventAttempt.objects.exclude(delivery=well).get()
    assert (well.standing, broken.outcome) == ("delivered", Code.INTERNAL_ERROR)


def test_a_claim_that_was_taken_over_changes_nothing():
    delivery = now_due(a_destination())
    (claimed,) = events._claim(timezone.now())
    EventDelivery.objects.update(fence=9, due_at=None, delivered_at=timezone.now())

    message = events._message(claimed)
    events._record(claimed, message, events.Outcome(code=Code.TIMEOUT), now=timezone.now())

    delivery.refresh_from_db()
    assert (delivery.standing, delivery.tries) == ("delivered", 0)


def test_two_senders_share_the_work():
    with listening(OK) as receiver:
        place = at(receiver)
        deliveries = [now_due(place) for _ in range(50)]
        in_threads(2, lambda _place: events.send_due())

    ids = sorted(r.headers["webhook-id"] for r in receiver.requests)
    assert ids == sorted(d.event.key for d in deliveries)


@pytest.mark.service
def test_a_queue_is_told_with_the_same_id(settings, rabbitmq_url):
    settings.RABBITMQ_URL = rabbitmq_url
    name = f"batcher-test-{uuid.uuid4().hex[:12]}"
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(name, exclusive=True)
        delivery = now_due(a_destination(type="rabbitmq", url="", queue=name))
        missing = now_due(a_destination(type="rabbitmq", url="", queue="no-such-queue"))
        events.send_due()
        _, properties, body = channel.basic_get(name, auto_ack=True)

    assert (properties.message_id, properties.delivery_mode) == (delivery.event.key, 2)
    assert properties.headers["x-batcher-event"] == "batch.completed"
    assert json.loads(body)["type"] == "batch.completed"
    assert EventAttempt.objects.get(delivery=missing).outcome == Code.QUEUE_NOT_FOUND
