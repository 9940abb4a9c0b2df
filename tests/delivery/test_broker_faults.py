"""A real broker that ends, blocks and refuses while results are delivered to it: none is lost, none is taken for done."""

from __future__ import annotations

import uuid
from collections import Counter
from functools import partial

import pika
import pytest
from django.utils import timezone

from batching.models import Request
from delivery import dispatch, rabbitmq
from delivery.models import Attempt
from delivery.outcome import Code
from tests.batching.rows import a_destination
from tests.delivery.broker_proxy import Proxy
from tests.delivery.receivers import answering
from tests.delivery.results import listening
from tests.delivery.workers import (
    add_results,
    another_process,
    dispatching,
    end_leases,
    end_waits,
    place_at,
    states,
    until,
)

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True), pytest.mark.slow]

COUNT = 300


@pytest.fixture
def queue(own_broker, settings):
    """Return the name of a durable queue of the node that the senders publish to."""
    settings.RABBITMQ_URL = own_broker.url
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    name = f"results.{uuid.uuid4().hex}"
    with_channel(own_broker.url, lambda channel: channel.queue_declare(name, durable=True))
    return name


def with_channel(url, work):
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return work(connection.channel())


def arrived(url, queue) -> Counter[str]:
    """Take all messages out of the queue; return how often each id came."""

    def take(channel):
        ids = Counter()
        while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
            ids[message[1].message_id] += 1
        return ids

    return with_channel(url, take)


def waiting(url, queue) -> int:
    return with_channel(url, lambda c: c.queue_declare(queue, passive=True).method.message_count)


def place_of(queue="", **fields):
    return a_destination(type="rabbitmq", url="", queue=queue, **fields)


def ids_at(place) -> set[str]:
    rows = Request.objects.filter(destination=place)
    return {f"{key}-{attempt}" for key, attempt in rows.values_list("key", "attempt")}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_unconfirmed_when_the_broker_ended_is_published_again_under_its_id(
    own_broker, queue, end, settings
):
    proxy = Proxy(own_broker.url)
    settings.RABBITMQ_URL, proxy.loses_confirms = proxy.url, True
    place = place_of(queue)
    add_results(place, COUNT)
    with dispatching():
        until(lambda: waiting(own_broker.url, queue) == COUNT, "all to be in the queue")
        getattr(own_broker, end)()
    assert states(place) == {"processed": COUNT}

    own_broker.start()
    proxy.loses_confirms = False
    end_waits()
    while dispatch.send_due():  # one decides whether the circuit closes
        pass
    proxy.close()

    assert states(place) == {"delivered": COUNT}
    ids = arrived(own_broker.url, queue)
    assert set(ids) == ids_at(place)
    assert set(ids.values()) <= {1, 2}  # a killed broker may have lost what it had not confirmed


def test_while_the_broker_is_away_results_wait_for_it_and_webhooks_do_not(own_broker, queue):
    own_broker.stop()
    place = place_of(queue)
    add_results(place, 20)
    with listening(answering("200 OK")) as receiver:
        well = place_at(receiver, 20)
        dispatch.send_due()

    assert states(well) == {"delivered": 20}
    assert states(place) == {"processed": 20}
    assert set(tried(place)) == {Code.CONNECTION_ERROR}
    own_broker.start()
    end_waits()
    while dispatch.send_due():
        pass
    assert states(place) == {"delivered": 20}
    assert set(arrived(own_broker.url, queue)) == ids_at(place)


def tried(place) -> list[str]:
    return list(Attempt.objects.filter(destination=place).values_list("outcome", flat=True))


def test_a_broker_with_an_alarm_takes_nothing_and_gets_it_when_the_alarm_is_over(
    own_broker, queue, monkeypatch
):
    monkeypatch.setattr(dispatch.rabbitmq, "Stream", partial(rabbitmq.Stream, timeout_s=2))
    place = place_of(queue)
    add_results(place, 5)
    own_broker.control("set_vm_memory_high_watermark", "0.000001")
    try:
        dispatch.send_due()
        assert set(tried(place)) == {Code.BROKER_BLOCKED}
        assert states(place) == {"processed": 5}
    finally:
        own_broker.control("set_vm_memory_high_watermark", "0.4")
    end_waits()

    while dispatch.send_due():
        pass

    assert states(place) == {"delivered": 5}
    assert set(arrived(own_broker.url, queue)) == ids_at(place)


@pytest.fixture
def limited_user(own_broker, queue, settings):
    """Let the senders publish to the default exchange, amq.direct and one that is not there."""
    name = f"user-{uuid.uuid4().hex}"
    own_broker.control("add_user", name, "a-password")
    own_broker.control("set_permissions", name, "", r"^(amq\.(default|direct)|not\.there)$", "")
    settings.RABBITMQ_URL = own_broker.url.replace("guest:guest", f"{name}:a-password")


@pytest.mark.usefixtures("limited_user")
def test_each_way_to_refuse_is_told_apart_and_tried_again_and_never_taken_for_delivered(
    own_broker, queue
):
    full = f"{queue}.full"
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with_channel(own_broker.url, lambda c: c.queue_declare(full, arguments=limits))
    with_channel(own_broker.url, lambda c: c.basic_publish("", full, b"first"))
    refused = {
        Code.QUEUE_NOT_FOUND: place_of(f"{queue}.missing"),
        Code.EXCHANGE_NOT_FOUND: place_of(exchange="not.there", routing_key="k"),
        Code.UNROUTABLE: place_of(exchange="amq.direct", routing_key="unbound"),
        Code.ACCESS_REFUSED: place_of(exchange="amq.topic", routing_key="k"),
        Code.NACKED: place_of(full),
    }
    well = place_of(queue)
    for place in (*refused.values(), well):
        add_results(place, 3)

    dispatch.send_due()

    assert {code: tried(place) for code, place in refused.items()} == {c: [c] * 3 for c in refused}
    assert states(*refused.values()) == {"processed": 15}
    assert not Request.objects.filter(state="processed", due_at__lte=timezone.now()).exists()
    assert states(well) == {"delivered": 3}


def test_a_worker_killed_between_the_confirm_and_its_commit_publishes_again_under_the_same_id(
    own_broker, queue, tmp_path
):
    place = place_of(queue)
    add_results(place, 1)
    with another_process(tmp_path, "dying_dispatch.py", RABBITMQ_URL=own_broker.url) as worker:
        assert worker.wait(60) == -9
    assert states(place) == {"delivering": 1}
    end_leases()

    assert dispatch.send_due() == 1

    assert states(place) == {"delivered": 1}
    assert arrived(own_broker.url, queue) == dict.fromkeys(ids_at(place), 2)
