"""Drive a running Batcher with many mixed requests, and check that each result arrives exactly once.

    python -m benchmarks.mixed --url http://127.0.0.1:8000 --key bm_live_… --count 10000

Five endpoints, three models, three kinds of delivery (webhook, RabbitMQ, pull), posted as one
compressed NDJSON upload. A receiver of its own takes the webhooks on 127.0.0.1; RabbitMQ is read from a
queue of its own when RABBITMQ_URL is set, else those requests go by webhook too. Prints what arrived,
how often, how long it took, and the peak memory of the processes named with --pid (see memory).
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pika
from aiohttp import web

from benchmarks import memory

_MODELS = ("gpt-5-mini", "gpt-4.1-mini", "gpt-5-nano")
_SAY = sys.stdout.write


def _bodies(model: str, number: int) -> tuple[tuple[str, dict[str, Any]], ...]:
    text = f"Question {number}: what is {number} plus one?"
    chat = [{"role": "user", "content": text}]
    return (
        ("/v1/responses", {"model": model, "input": text}),
        ("/v1/chat/completions", {"model": model, "messages": chat}),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": text}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [text, model]}),
        ("/v1/moderations", {"model": "omni-moderation-latest", "input": text}),
    )


def _lines(count: int, run: str, deliveries: list[dict[str, str]]) -> Iterator[bytes]:
    for number in range(count):
        model = _MODELS[number % len(_MODELS)]
        url, body = _bodies(model, number)[number % 5]
        request = {
            "custom_id": f"{run}-{number}",
            "url": url,
            "method": "POST",
            "body": body,
            "delivery_config": _delivery(deliveries, number),
            "max_wait_s": 0,
        }
        yield json.dumps(request).encode() + b"\n"


def _delivery(deliveries: list[dict[str, str]], number: int) -> dict[str, str]:
    return deliveries[number % 7 % len(deliveries)]


class Receiver:
    """Counts webhooks by their id and by the request they answer."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait(10)

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/hook", self._take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        self._ready.set()
        await asyncio.Event().wait()

    async def _take(self, request: web.Request) -> web.Response:
        self.seen[json.loads(await request.read())["custom_id"]] += 1
        return web.Response()


class Api:
    """The few calls of Batcher's API that the drive needs."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url.rstrip("/"), key

    def call(self, path: str, data: bytes | None = None, **headers: str) -> bytes:
        """Post data, or get; returns the answer's body."""
        request = urllib.request.Request(self._url + path, data)  # noqa: S310  # the caller's URL
        request.add_header("authorization", f"Bearer {self._key}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return bytes(answer.read())

    def batches(self) -> list[dict[str, Any]]:
        """Return every batch, over all pages."""
        found, cursor = [], ""
        while True:
            page = json.loads(self.call(f"/api/batches?limit=100&cursor={cursor}"))
            found += page["data"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found


class Broker:
    """A queue of RabbitMQ that counts what arrives; nothing without RABBITMQ_URL."""

    def __init__(self, run: str) -> None:
        self.seen: Counter[str] = Counter()
        self.queue = f"batcher.bench.{run}"
        url = os.environ.get("RABBITMQ_URL", "")
        self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel() if url else None
        if self._channel is not None:
            self._channel.queue_declare(self.queue)

    @property
    def deliveries(self) -> list[dict[str, str]]:
        """The delivery_config that leads here, if any does."""
        if self._channel is None:
            return []
        return [{"type": "rabbitmq", "rabbitmq_queue": self.queue}]

    def drain(self) -> None:
        """Take what has arrived."""
        while self._channel is not None:
            frame, _, body = self._channel.basic_get(self.queue, auto_ack=True)
            if frame is None:
                return
            self.seen[json.loads(body)["custom_id"]] += 1

    def close(self) -> None:
        """Take what is left and remove the queue."""
        self.drain()
        if self._channel is not None:
            self._channel.queue_delete(self.queue)


def drive(options: argparse.Namespace) -> int:
    """Run the drive; returns 0 when everything arrived exactly once."""
    run = uuid.uuid4().hex[:8]
    api, receiver, broker = Api(options.url, options.key), Receiver(), Broker(run)
    earlier = {b["id"] for b in api.batches()}
    deliveries = [{"type": "webhook", "webhook_url": receiver.url}, {"type": "none"}]
    deliveries += broker.deliveries
    kinds = [_delivery(deliveries, n)["type"] for n in range(options.count)]
    expected = options.count - kinds.count("none")
    data = gzip.compress(b"".join(_lines(options.count, run, deliveries)))

    began = time.monotonic()
    answer = json.loads(api.call("/api/requests/bulk", data, content_encoding="gzip"))
    taken = time.monotonic() - began
    _SAY(f"taken in {taken:.1f} s, {options.count / taken:,.0f} lines/s: {answer}\n")
    batches: list[dict[str, Any]] = []
    while time.monotonic() - began < options.seconds:
        broker.drain()
        batches = [b for b in api.batches() if b["id"] not in earlier]
        all_here = len(receiver.seen) + len(broker.seen) >= expected
        if all_here and {b["state"] for b in batches} == {"delivered"}:
            break
        time.sleep(0.5)
    broker.close()
    wall = time.monotonic() - began
    _SAY(f"{wall:.1f} s in all, {options.count / wall:,.0f} requests/s\n")
    _report(batches, receiver.seen + broker.seen, expected, options.count)
    return 0 if len(receiver.seen) + len(broker.seen) == expected else 1


def _report(batches: list[dict[str, Any]], seen: Counter[str], expected: int, count: int) -> None:
    twice = sum(n > 1 for n in seen.values())
    _SAY(f"{len(seen):,} of {expected:,} delivered, {twice} of them more than once;")
    _SAY(f" {count - expected:,} to be pulled\n")
    sizes = sorted(b["request_count"] for b in batches)
    _SAY(f"{len(batches)} batches {dict(Counter(b['state'] for b in batches))}: {sizes}\n")


def main() -> None:
    """Read the command line and drive."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600, help="give up after so long")
    memory.add_options(parser)
    sys.exit(memory.measured(drive, parser.parse_args()))


if __name__ == "__main__":
    main()
