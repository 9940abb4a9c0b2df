"""Publish many requests to the input queue of a running Batcher, and check that each is stored once.

    python -m benchmarks.rabbitmq_intake --url http://127.0.0.1:8000 --key bm_live_… \\
        --rabbitmq amqp://guest:guest@127.0.0.1/ --queue batcher.in --count 50001

Among the requests are duplicates and poison messages. Prints how long the queue took to be emptied, and how that
compares with a bare pika consumer that only acknowledges the same number of messages, in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
import uuid
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

_SAY = sys.stdout.write
_POISON = (b"[]", b"7", b"{bad", b"\xff\xfe")
_PREFETCH = 1_000


def _request(custom_id: str) -> bytes:
    request = {
        "custom_id": custom_id,
        "url": "/v1/responses",
        "method": "POST",
        "body": {"model": "gpt-4o-mini", "input": "Hi"},
        "delivery_config": {"type": "none"},
        "max_wait_s": 3600,
    }
    return json.dumps(request).encode()


def _publish(channel: BlockingChannel, queue: str, run: str, count: int) -> None:
    """Publish ``count`` requests, every thousandth twice, and each kind of poison."""
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    for number in range(count):
        body = _request(f"{run}-{number}")
        for _ in range(2 if number % 1000 == 0 else 1):
            channel.basic_publish("", queue, body, properties)
    for body in _POISON:
        channel.basic_publish("", queue, body, properties)


def _bare(channel: BlockingChannel, count: int) -> float:
    """Return how many messages a second a consumer takes that only acknowledges."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    for number in range(count):
        channel.basic_publish("", queue, _request(f"bare-{number}"))
    channel.basic_qos(prefetch_count=_PREFETCH)
    began = time.monotonic()
    for seen, (method, _, _) in enumerate(channel.consume(queue), 1):
        if seen % (_PREFETCH // 2) == 0 or seen == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if seen == count:
            break
    took_s = time.monotonic() - began
    channel.cancel()
    return count / took_s


def _until_empty(channel: BlockingChannel, queue: str) -> None:
    while channel.queue_declare(queue, passive=True).method.message_count:
        time.sleep(0.1)


def _stored(url: str, key: str, run: str, least: int) -> int:
    """Count the run's requests page by page, until ``least`` are there or half a minute went by."""
    until = time.monotonic() + 30
    while (found := _count(url, key, run)) < least and time.monotonic() < until:
        time.sleep(0.5)
    return found


def _count(url: str, key: str, run: str) -> int:
    seen, cursor = set[str](), ""
    while True:
        page = _get(f"{url}/api/requests?q={run}-&limit=200&cursor={cursor}", key)
        seen |= {row["id"] for row in page["data"]}
        cursor = page["next_cursor"]
        if not cursor:
            return len(seen)


def _get(url: str, key: str) -> Any:
    call = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310
    with urllib.request.urlopen(call, timeout=30) as answer:  # noqa: S310  # the address we were given
        return json.load(answer)


def main() -> int:
    """Publish, wait, count, compare."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--url", default="http://127.0.0.1:8000")
    asked.add_argument("--key", required=True)
    asked.add_argument("--rabbitmq", default="amqp://guest:guest@127.0.0.1:5672/")
    asked.add_argument("--queue", required=True)
    asked.add_argument("--count", type=int, default=50_001)
    options = asked.parse_args()
    run = uuid.uuid4().hex[:12]
    with pika.BlockingConnection(pika.URLParameters(options.rabbitmq)) as connection:
        channel = connection.channel()
        bare = _bare(channel, options.count)
        _SAY(f"bare consumer: {bare:,.0f} messages/s\n")
        began = time.monotonic()
        _publish(channel, options.queue, run, options.count)
        _SAY(f"published {options.count:,} in {time.monotonic() - began:.1f} s\n")
        _until_empty(channel, options.queue)
        took_s = time.monotonic() - began
    stored = _stored(options.url, options.key, run, options.count)
    rate = options.count / took_s
    _SAY(
        f"taken: {rate:,.0f} requests/s from the first publish on, {rate / bare:.2f} of the bare one\n"
    )
    _SAY(f"stored: {stored:,} of {options.count:,}\n")
    return 0 if stored == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
