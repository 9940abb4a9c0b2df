"""Whatever is due is sent: to real receivers on real sockets, each on its own account."""

from __future__ import annotations

import json
import threading
import time
import uuid
from datetime import timedelta

import pika
import pytest
from django.utils import timezone

from batching.models import Request
from batching.models.projects import new_signing_secret
from delivery import dispatch, due, parcels, turns
from delivery.models import Attempt
from delivery.outcome import Code
from delivery.webhook import WebhookSender
from tests.batching.rows import a_destination
from tests.delivery.receivers import answering, hanging
from tests.delivery.results import a_bad_end, a_result, answer_of, listening

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


def at(receiver, **fields):
    return a_destination(url=receiver.url("/hook"), secret=new_signing_secret(), **fields)


def due_now():
    return {"due_at": timezone.now() - timedelta(seconds=1)}


def test_what_is_due_arrives_once_signed_and_as_it_is():
    with listening(answering("204 No Content")) as receiver:
        destination = at(receiver)
        results = [a_result(destination, **due_now()) for _ in range(30)]

        assert dispatch.send_due() == 30

    ids = [r.headers["webhook-id"] for r in receiver.requests]
    assert sorted(ids) == sorted(f"{r.key}-1" for r in results)
    assert all(r.headers["webhook-signature"].startswith("v1,") for r in receiver.requests)
    assert set(Request.objects.values_list("state", flat=True)) == {"delivered"}
    line = json.loads(bytes(answer_of(results[0]).line))
    bodies = {b["custom_id"]: b for b in (json.loads(r.body) for r in receiver.requests)}
    assert bodies[results[0].custom_id]["response"] == line["response"]


def test_bad_ends_are_told_like_good_ones():
    with listening(answering("200 OK")) as receiver:
        a_bad_end(at(receiver), state="cancelled", **due_now())

        dispatch.send_due()

    assert json.loads(receiver.requests[0].body)["outcome"] == "cancelled"
    assert Request.objects.get().delivered_at


def test_a_receiver_that_refuses_is_tried_again_later():
    with listening(answering("503 Service Unavailable")) as receiver:
        a_result(at(receiver), **due_now())

        assert dispatch.send_due() == 1
        assert dispatch.send_due() == 0

    request = Request.objects.get()
    assert (request.state, request.tries) == ("processed", 1)
    assert request.due_at > timezone.now() + timedelta(seconds=50)
    assert Attempt.objects.get().status == 503


def test_gone_stops_everything_for_that_receiver_only():
    with listening(answering("410 Gone")) as gone, listening(answering("200 OK")) as well:
        left, right = at(gone), at(well)
        a_result(left, **due_now())
        a_result(right, **due_now())

        dispatch.send_due()

    left.refresh_from_db()
    right.refresh_from_db()
    assert left.disabled_at
    assert right.disabled_at is None
    assert len(well.requests) == 1


@pytest.mark.parametrize("held", ["paused_at", "disabled_at"])
def test_nothing_is_sent_to_a_held_destination(held):
    with listening(answering("200 OK")) as receiver:
        a_result(at(receiver, **{held: timezone.now()}), **due_now())

        assert dispatch.send_due() == 0

    assert receiver.connections == 0


async def dripping(visit):
    await visit.request()
    await visit.drip([b"HTTP/1.1 200 OK\r\n", *[b"x"] * 3000])


@pytest.mark.parametrize("slowly", [hanging, dripping], ids=["hangs", "drips headers"])
def test_a_receiver_that_keeps_us_waiting_does_not_slow_down_another(slowly):
    arrived = []

    async def noting(visit):
        while await visit.request():
            arrived.append(time.monotonic())
            await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with listening(slowly) as stuck, listening(noting) as well:
        slow, quick = at(stuck, timeout_s=1), at(well)
        for destination in (slow, quick) * 30:
            a_result(destination, **due_now())
        began = time.monotonic()
        dispatch.send_due()

    assert len(arrived) == 30
    assert max(arrived) - began < 1
    assert Attempt.objects.filter(outcome="timeout").count() == 30


def test_large_results_are_loaded_as_others_leave(monkeypatch):
    monkeypatch.setattr(dispatch, "_HELD_BYTES", 1)
    monkeypatch.setattr(parcels, "_GROUP_ROWS", 1)
    loaded, held = dispatch.due.load, []

    def load(claims):
        held.append(Attempt.objects.count())
        return loaded(claims)

    monkeypatch.setattr(dispatch.due, "load", load)
    with listening(answering("200 OK")) as receiver:
        destination = at(receiver)
        for _ in range(4):
            a_result(destination, **due_now())

        assert dispatch.send_due() == 4

    assert held == [0, 1, 2, 3]


def test_a_sender_that_breaks_ends_only_its_own_try(monkeypatch):
    real = WebhookSender.send
    broken = []

    async def once_broken(self, endpoint, message, **how):
        if not broken:
            broken.append(message.id)
            raise RuntimeError("bug")
        return await real(self, endpoint, message, **how)

    monkeypatch.setattr(WebhookSender, "send", once_broken)
    with listening(answering("200 OK")) as receiver:
        destination = at(receiver)
        for _ in range(3):
            a_result(destination, **due_now())

        assert dispatch.send_due() == 3

    outcomes = sorted(Attempt.objects.values_list("outcome", flat=True))
    assert outcomes == ["delivered", "delivered", "internal_error"]


def test_what_a_turn_passed_over_while_it_was_recorded_leaves_in_the_same_run(
    monkeypatch, postgresql_url
):
    take, record = turns.take, due.record
    taken, recorded = [], threading.Event()

    def note_record(sent, *, now):
        record(sent, now=now)
        recorded.set()

    def take_blindly(*args, **how):
        taken.append(how)
        if len(taken) != 2:
            return take(*args, **how)
        recorded.wait(10)
        time.sleep(0.2)  # and the run hears of it
        return turns.Turn()

    monkeypatch.setattr(due, "record", note_record)
    monkeypatch.setattr(turns, "take", take_blindly)
    with listening(answering("200 OK")) as receiver:
        destination = at(receiver, max_in_flight=1)
        for _ in range(2):
            a_result(destination, **due_now())

        assert dispatch.send_due() == 2


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


def test_a_killed_run_leaves_its_results_to_the_next_after_the_lease(monkeypatch):
    def kill(*_args, **_kwargs):
        raise Killed

    with listening(answering("200 OK")) as receiver:
        a_result(at(receiver), **due_now())
        with monkeypatch.context() as patch:
            patch.setattr(dispatch.due, "record", kill)
            with pytest.raises(Killed):
                dispatch.send_due()
        assert dispatch.send_due() == 0
        Request.objects.update(due_at=timezone.now())

        assert dispatch.send_due() == 1

    assert len({r.headers["webhook-id"] for r in receiver.requests}) == 1
    assert len(receiver.requests) == 2
    assert Request.objects.get().state == "delivered"


def test_without_a_broker_its_results_are_given_up_with_the_reason(settings):
    settings.RABBITMQ_URL = ""
    a_result(a_destination(type="rabbitmq", url="", queue="results"), **due_now())

    dispatch.send_due()

    assert Attempt.objects.get().outcome == Code.RABBITMQ_NOT_CONFIGURED
    assert Request.objects.get().state == "delivery_failed"


@pytest.fixture
def queue(rabbitmq_url, settings):
    """A queue of a real broker, to be looked into."""
    settings.RABBITMQ_URL = rabbitmq_url
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        channel = connection.channel()
        name = f"test.{uuid.uuid4().hex}"
        channel.queue_declare(name)
        yield channel, name
        channel.queue_delete(name)


@pytest.mark.service
def test_results_reach_a_queue_and_a_missing_one_is_told_apart(queue):
    channel, name = queue
    there = a_destination(type="rabbitmq", url="", queue=name)
    missing = a_destination(type="rabbitmq", url="", queue=f"{name}.missing")
    result = a_result(there, **due_now())
    a_result(missing, **due_now())

    assert dispatch.send_due() == 2

    _, properties, body = channel.basic_get(name, auto_ack=True)
    assert properties.message_id == f"{result.key}-1"
    assert json.loads(body)["custom_id"] == result.custom_id
    outcomes = dict(Attempt.objects.values_list("destination", "outcome"))
    assert outcomes == {there.pk: "delivered", missing.pk: "queue_not_found"}
