"""An input queue of one test, a consumer of it on a thread, and what became of its messages."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import contextmanager

import pika

from batching.models import Request
from delivery.intake_consumer import Source, consume
from delivery.models import IntakeStatus
from tests.wiring.processes import wait_for


class Broker:
    """Queues of one test, with a connection of its own."""

    def __init__(self, url: str, queue: str = "") -> None:
        self.url = url
        self.queue = queue or f"test.{uuid.uuid4().hex}"
        self.refused = f"{self.queue}.refused"
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.channel.queue_declare(self.refused)

    def declare(self) -> None:
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.refused}
        self.channel.queue_declare(self.queue, durable=True, arguments=dead)

    def send(self, body: object, **properties: object) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = pika.BasicProperties(**properties)
        self.channel.basic_publish("", self.queue, sent, properties, mandatory=True)

    def waiting(self, queue: str = "") -> int:
        return self.channel.queue_declare(queue or self.queue, passive=True).method.message_count

    def refused_bodies(self, queue: str = "") -> list[bytes]:
        bodies = []
        while (found := self.channel.basic_get(queue or self.refused, auto_ack=True))[0]:
            bodies.append(found[2])
        return bodies

    def close(self) -> None:
        for queue in (self.queue, self.refused, f"{self.queue}.rejected"):
            self.channel.queue_delete(queue)
        self.connection.close()


@contextmanager
def consuming(broker, **options):
    """Consume for the length of the block, on a thread; fail if the consumer broke down."""
    stop, ended = threading.Event(), []
    source = Source(**({"url": broker.url, "queue": broker.queue} | options))

    def run():
        consume(source, stop)
        ended.append("in peace")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=20)
    assert ended == ["in peace"]


def until(condition, what="what was expected", timeout_s=20):
    wait_for(condition, timeout_s=timeout_s, what=what)


def stored():
    return Request.objects.count()


def state():
    return IntakeStatus.objects.values_list("state", flat=True).first()
