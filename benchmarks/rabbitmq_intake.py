"""Publish many requests to the input queue of a running Batcher, and check that each is stored once.

    python -m benchmarks.rabbitmq_intake --url http://127.0.0.1:8000 --key bm_live_… \\
        --rabbitmq amqp://guest:guest@127.0.0.1/ --queue batcher.in --count 50001

Among the requests are duplicates and poison messages. Prints how long the queue took to be emptied, and how that
compares with a bare pika consumer that only acknowledges the same number of messages, in the same run.
With ``--restart 'COMMAND'`` every message is published until the broker has confirmed it, and the command, which is
to restart the broker, runs when half of them are: give a broker that serves nobody else.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from benchmarks import memory

_SAY = sys.stdout.write
_POISON = (b"[]", b"7", b"{bad", b"\xff\xfe", b'{"a":"%b"}' % (b"x" * 17_000_000))
_KEPT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
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


def _messages(run: str, count: int) -> Iterator[bytes]:
    """Yield ``count`` requests, every thousandth twice, with each kind of poison among them."""
    poison = {(place + 1) * count // (len(_POISON) + 1): body for place, body in enumerate(_POISON)}
    for number in range(count):
        yield from [_request(f"{run}-{number}")] * (2 if number % 1000 == 0 else 1)
        if number in poison:
            yield poison[number]


def _publish(url: str, queue: str, messages: Iterable[bytes]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for body in messages:
            channel.basic_publish("", queue, body, _KEPT)


def _publish_confirmed(url: str, queue: str, messages: list[bytes], restart: str) -> None:
    """Publish each message until it is confirmed, on as many connections as that takes."""
    half, restarting = len(messages) // 2, None
    messages.reverse()
    while messages:
        try:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                while messages:
                    if len(messages) == half and restarting is None:
                        restarting = subprocess.Popen(shlex.split(restart))
                    channel.basic_publish("", queue, messages[-1], _KEPT, mandatory=True)
                    messages.pop()
        except (AMQPError, OSError) as problem:
            _SAY(f"publisher: {type(problem).__name__}, {len(messages):,} left\n")
            time.sleep(0.5)
    if restarting is not None and restarting.wait(120):
        raise RuntimeError(f"--restart ended with {restarting.returncode}")


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


def _until_empty(url: str, queue: str) -> None:
    """Wait until nothing is left to be handed out."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
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


def drive(options: argparse.Namespace) -> int:
    """Publish, wait, count, compare."""
    run = uuid.uuid4().hex[:12]
    with pika.BlockingConnection(pika.URLParameters(options.rabbitmq)) as connection:
        bare = _bare(connection.channel(), options.count)
    _SAY(f"bare consumer: {bare:,.0f} messages/s\n")
    messages = list(_messages(run, options.count))
    began = time.monotonic()
    if options.restart:
        _publish_confirmed(options.rabbitmq, options.queue, messages, options.restart)
    else:
        _publish(options.rabbitmq, options.queue, messages)
    _SAY(f"published {options.count:,} in {time.monotonic() - began:.1f} s\n")
    _until_empty(options.rabbitmq, options.queue)
    took_s = time.monotonic() - began
    stored = _stored(options.url, options.key, run, options.count)
    rate = options.count / took_s
    _SAY(
        f"taken: {rate:,.0f} requests/s from the first publish on, {rate / bare:.2f} of the bare one\n"
    )
    _SAY(f"stored: {stored:,} of {options.count:,}\n")
    return 0 if stored == options.count else 1


def main() -> int:
    """Read the command line and drive."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--url", default="http://127.0.0.1:8000")
    asked.add_argument("--key", required=True)
    asked.add_argument("--rabbitmq", default="amqp://guest:guest@127.0.0.1:5672/")
    asked.add_argument("--queue", required=True)
    asked.add_argument("--count", type=int, default=50_001)
    asked.add_argument("--restart", default="", help="a command that restarts the broker")
    memory.add_options(asked)
    return memory.measured(drive, asked.parse_args())


if __name__ == "__main__":
    sys.exit(main())
