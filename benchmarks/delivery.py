"""Measure delivery as ratios to bare clients that send the same bytes to the same place in the same run.

    python -m benchmarks.delivery                              # SQLite
    DATABASE_URL=postgresql://… python -m benchmarks.delivery  # PostgreSQL; a test database is made and dropped
    RABBITMQ_URL=amqp://… python -m benchmarks.delivery        # and messages to RabbitMQ

What is measured is one dispatch run, from its first claim to its last record: claims, signing, attempts, states
and logs included. The yardsticks are aiohttp (64 in flight; 200 to a receiver that takes 50 ms) and pika's blocking
connection without confirms; they send the same bodies and the same headers. Before the clock runs, both sides
send a few to the same place, for both have something to do once in a process's life: modules, statements, TLS
terms, a destination's health row. Connections are opened within the measured time, on both sides. The yardstick of
RabbitMQ ends with the broker's word that it read everything; it is not told that anything is safe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import django
import pika

_RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()

from django.conf import settings  # noqa: E402  # after the set-up
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from batcher import garbage  # noqa: E402
from batching.models import (  # noqa: E402
    Account,
    Answer,
    Destination,
    Lane,
    Project,
    Request,
    RequestBody,
)
from batching.models.projects import new_signing_secret  # noqa: E402
from delivery import dispatch, due  # noqa: E402
from delivery.outcome import Message  # noqa: E402

_ANSWER = {"status_code": 200, "request_id": "r", "body": {"output": "x" * 1_000}}
_WARM_UP = 20
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Taker(asyncio.Protocol):
    """Answers every post with 200 after ``delay_s``; as little HTTP as it takes."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while (end := self._bytes.find(b"\r\n\r\n")) >= 0:
            head = self._bytes[:end].lower()
            at = head.index(b"content-length:") + 15
            size = int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else None])
            if len(self._bytes) < end + 4 + size:
                return
            self._bytes = self._bytes[end + 4 + size :]
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, _OK)
            else:
                self._transport.write(_OK)


def _serve(delay_s: float, told: Any) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Taker(delay_s), "127.0.0.1", 0, backlog=1_000)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def receiving(delay_s: float) -> Iterator[str]:
    """Run a receiver in a process of its own; yields its URL."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe()
    process = context.Process(target=_serve, args=(delay_s, tell), daemon=True)
    process.start()
    tell.close()  # a receiver that dies at once is an error here, not a wait
    try:
        yield f"http://127.0.0.1:{told.recv()}/hook"
    finally:
        process.terminate()
        process.join()


def make_due(destination: Destination, count: int) -> None:
    """Make results with an answer of a kilobyte that are due at the destination."""
    account, _ = Account.objects.get_or_create(
        name="bench", defaults={"kind": "sandbox", "base_url": "http://127.0.0.1:9/v1"}
    )
    lane, _ = Lane.objects.get_or_create(account=account, model="m", endpoint="/v1/responses")
    now = timezone.now()
    requests = Request.objects.bulk_create(
        Request(
            project=destination.project,
            custom_id=f"row-{destination.pk}-{count}-{n}",
            fingerprint="f" * 64,
            lane=lane,
            destination=destination,
            state="processed",
            seal_by=now,
            settled_at=now,
            due_at=now,
            size_bytes=600,
            token_estimate=10,
        )
        for n in range(count)
    )
    RequestBody.objects.bulk_create(RequestBody(request=r, body=b"{}") for r in requests)
    Answer.objects.bulk_create(
        Answer(
            request=r,
            attempt=1,
            status_code=200,
            line=json.dumps(
                {"id": "b", "custom_id": r.key, "response": _ANSWER, "error": None}
            ).encode(),
            input_tokens=10,
            output_tokens=100,
        )
        for r in requests
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def messages_for(destination: Destination) -> list[Message]:
    """Return what is to be delivered there."""
    ids = (
        Request.objects.filter(destination=destination).order_by("pk").values_list("pk", flat=True)
    )
    claims = [
        due.Claim(request_id=pk, destination_id=destination.pk, fence=0, number=1) for pk in ids
    ]
    return [p.message for n in range(0, len(claims), 500) for p in due.load(claims[n : n + 500])]


async def _bare_posts(url: str, sent: list[Message], in_flight: int) -> None:
    waiting = iter(sent)

    async def one(session: aiohttp.ClientSession) -> None:
        for message in waiting:
            headers = {"content-type": "application/json", **dict(message.headers)}
            async with session.post(url, data=message.body, headers=headers) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(session) for _ in range(in_flight)))


def _bare_publish(queue: str, sent: list[Message]) -> None:
    with pika.BlockingConnection(pika.URLParameters(_RABBITMQ_URL)) as broker:
        channel = broker.channel()
        for message in sent:
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent,
                message_id=message.id,
                headers=dict(message.headers),
            )
            channel.basic_publish("", queue, message.body, properties)


def _dispatched(destination: Destination) -> float:
    began = time.perf_counter()
    dispatch.send_due()
    took_s = time.perf_counter() - began
    late = Request.objects.filter(destination=destination).exclude(state="delivered").count()
    if late:
        raise RuntimeError(f"{late} results were not delivered: the figures mean nothing")
    return took_s


def webhooks(project: Project, count: int, delay_s: float, in_flight: int) -> tuple[float, float]:
    """Return the rates of bare aiohttp and of a dispatch, in results a second."""
    caps = {"max_in_flight": in_flight} if delay_s else {}
    with receiving(delay_s) as url:
        place = Destination.objects.create(
            project=project, type="webhook", url=url, secret=new_signing_secret(), **caps
        )
        make_due(place, _WARM_UP)
        asyncio.run(_bare_posts(url, messages_for(place), in_flight))
        _dispatched(place)
        make_due(place, count)
        sent = messages_for(place)[-count:]
        began = time.perf_counter()
        asyncio.run(_bare_posts(url, sent, in_flight))
        bare_s = time.perf_counter() - began
        return count / bare_s, count / _dispatched(place)


def messages(project: Project, count: int) -> tuple[float, float]:
    """Return the rates of blocking pika without confirms and of a dispatch."""
    queue = f"batcher.bench.{uuid.uuid4().hex[:8]}"
    settings.RABBITMQ_URL = _RABBITMQ_URL
    with pika.BlockingConnection(pika.URLParameters(_RABBITMQ_URL)) as broker:
        channel = broker.channel()
        channel.queue_declare(queue)
        place = Destination.objects.create(project=project, type="rabbitmq", queue=queue)
        make_due(place, _WARM_UP)
        _bare_publish(queue, messages_for(place))
        _dispatched(place)
        make_due(place, count)
        sent = messages_for(place)[-count:]
        began = time.perf_counter()
        _bare_publish(queue, sent)
        bare_s = time.perf_counter() - began
        channel.queue_purge(queue)
        try:
            return count / bare_s, count / _dispatched(place)
        finally:
            channel.queue_delete(queue)


def measure(count: int) -> dict[str, tuple[float, float]]:
    """Take each figure once: part to (yardstick's rate, ours)."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    project = Project.objects.create(name="bench")
    rates = {
        "webhooks": webhooks(project, count, 0, 64),
        "webhooks, 50 ms": webhooks(project, count, 0.05, 200),
    }
    if _RABBITMQ_URL:
        rates["RabbitMQ"] = messages(project, count)
    return rates


def main() -> None:
    """Read the command line, make a test database for each round, print medians."""
    parser = argparse.ArgumentParser(description="Delivery against bare clients.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    garbage.look_less()  # as a worker does once it is loaded; it serves both sides
    rounds = []
    for _ in range(options.rounds):
        name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            rounds.append(measure(options.count))
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)
    sys.stdout.write(f"{connection.vendor}, {options.count:,} results, {options.rounds} rounds\n")
    for part in rounds[0]:
        bare, ours = (statistics.median(r[part][n] for r in rounds) for n in (0, 1))
        ratio = statistics.median(r[part][1] / r[part][0] for r in rounds)
        sys.stdout.write(
            f"{part:>16}: {ratio:.2f} of the bare client ({ours:,.0f} against {bare:,.0f} a second)\n"
        )


if __name__ == "__main__":
    main()
