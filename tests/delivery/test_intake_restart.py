"""The broker is stopped, or killed, while requests are published and taken: none is lost, none is doubled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading

import pika
import pytest
from pika.exceptions import AMQPError

from batching.models import Request
from delivery import intake_consumer
from delivery.models import Rejection
from tests.api.conftest import new_request
from tests.batching.rows import a_project, an_account
from tests.delivery.intake_queue import Broker, consuming, state, stored, until

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True)]

COUNT = 2_000
POISON_AT = {300: b"{bad", 700: b"[]", 1_100: b"7", 1_500: b"\xff\xfe"}


class Publisher(threading.Thread):
    """Publishes each message until the broker has confirmed it, over as many connections as that takes."""

    def __init__(self, url: str, queue: str) -> None:
        super().__init__(daemon=True)
        self.confirmed = 0
        self._url, self._queue = url, queue
        self._left = [json.dumps(new_request(f"r-{n}")).encode() for n in range(COUNT)]
        for place, poison in POISON_AT.items():
            self._left.insert(place, poison)
        self._left.reverse()

    def run(self) -> None:
        pause = threading.Event()
        while self._left:
            with contextlib.suppress(AMQPError, OSError):
                self._publish()
            pause.wait(0.1)

    def _publish(self) -> None:
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            kept = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            while self._left:
                channel.basic_publish("", self._queue, self._left[-1], kept, mandatory=True)
                self._left.pop()
                self.confirmed += 1


@pytest.fixture
def queue(own_broker, db, monkeypatch):
    """Return a queue that the consumer declares; its pauses are short."""
    monkeypatch.setattr(intake_consumer, "growing", lambda *_: iter([0.2] * 1000))
    an_account()
    a_project("default")
    queue = Broker(own_broker.url)
    queue.connection.close()
    return queue


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_ends_amid_the_traffic_costs_no_request_and_doubles_none(
    own_broker, queue, end
):
    publisher = Publisher(queue.url, queue.queue)
    with consuming(queue, prefetch=100, is_declared_by_us=True):
        until(lambda: state() == "consuming")
        publisher.start()
        until(lambda: publisher.confirmed > COUNT // 4 and stored() > 0)
        getattr(own_broker, end)()
        until(lambda: state() == "disconnected")
        own_broker.start()
        until(lambda: not publisher.is_alive() and stored() == COUNT, timeout_s=60)
        until(lambda: state() == "consuming")

    ids = Request.objects.values_list("custom_id", flat=True)
    assert set(ids) == {f"r-{number}" for number in range(COUNT)}
    after = Broker(queue.url, queue.queue)
    assert after.waiting() == 0
    assert set(after.refused_bodies(f"{queue.queue}.rejected")) == set(POISON_AT.values())
    after.connection.close()
    kept = set(Rejection.objects.values_list("sha256", flat=True))
    assert kept == {hashlib.sha256(body).hexdigest() for body in POISON_AT.values()}
