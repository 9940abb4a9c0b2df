"""What lies in the queues of the broker: counts, the oldest where the broker tells it, and who takes from them.

Each question to the outside has a deadline of a few seconds, and a broker that does not answer is an answer.
Called by the page *Workers and queues*; remembers what it saw for some seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pika
import redis
from celery import current_app
from django.conf import settings
from pika.exceptions import AMQPError, ChannelClosedByBroker

from batching.api.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DEADLINE_S: Final = 2.0
_seen: Memory[Looked] = Memory(seconds=4)


@dataclass(frozen=True, kw_only=True)
class QueueLook:
    """What one queue holds; None: the broker does not tell."""

    name: str
    waiting: int | None
    oldest_at: datetime | None = None
    consumers: int | None = None
    taken: int | None = None
    """Handed to a worker and not done with."""
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One broker and its queues."""

    broker: str
    """Kind and host, no credentials."""
    queues: Sequence[QueueLook] = ()
    trouble: str = ""
    """Why nothing could be seen."""


def work_queues() -> Looked:
    """Look at the queues that workers take from."""
    return _seen.get("work", _work_queues)


def input_queue() -> Looked | None:
    """Look at the queue that requests are taken from; None when none is named."""
    if not (settings.RABBITMQ_URL and settings.RABBITMQ_INPUT_QUEUE):
        return None
    name, url = settings.RABBITMQ_INPUT_QUEUE, settings.RABBITMQ_URL
    return _seen.get("input", lambda: _on_rabbitmq(url, [name, f"{name}.rejected"]))


def _work_queues() -> Looked:
    names = [queue.name for queue in current_app.conf.task_queues]
    url = settings.CELERY_BROKER_URL
    if url.startswith("embedded:"):
        return _on_disk(Path(current_app.conf.broker_transport_options["folder"]), names)
    return _on_redis(url, names) if url.startswith("redis") else _on_rabbitmq(url, names)


def _on_disk(folder: Path, names: Iterable[str]) -> Looked:
    """The embedded broker: a message is a file whose name begins with its time in nanoseconds."""
    queues = []
    for name in names:
        files, taken = _files(folder / name), _files(folder / "claimed" / name)
        queues.append(
            QueueLook(name=name, waiting=len(files), oldest_at=_oldest(files), taken=len(taken))
        )
    return Looked(broker="embedded, in DATA_DIR", queues=queues)


def _files(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _oldest(files: Iterable[str]) -> datetime | None:
    digits = min((name.partition(".")[0] for name in files), default="")
    return datetime.fromtimestamp(int(digits) / 10**9, tz=UTC) if digits.isdecimal() else None


def _on_redis(url: str, names: Sequence[str]) -> Looked:
    client = redis.Redis.from_url(
        url, socket_timeout=_DEADLINE_S, socket_connect_timeout=_DEADLINE_S
    )
    place = client.connection_pool.connection_kwargs
    broker = f"Redis at {place.get('host', '?')}:{place.get('port', 6379)}"
    try:
        lengths = client.pipeline(transaction=False)
        for name in names:
            lengths.llen(name)
        counts = lengths.execute()
    except (redis.RedisError, OSError) as problem:
        return Looked(broker=broker, trouble=f"does not answer ({type(problem).__name__})")
    finally:
        client.close()
    return Looked(
        broker=broker,
        queues=[QueueLook(name=name, waiting=int(count)) for name, count in zip(names, counts, strict=True)],
    )  # fmt: skip


def _on_rabbitmq(url: str, names: Iterable[str]) -> Looked:
    parameters = pika.URLParameters(url)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.blocked_connection_timeout = _DEADLINE_S
    parameters.stack_timeout = 2 * _DEADLINE_S
    broker = f"RabbitMQ at {parameters.host}:{parameters.port}"
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, OSError) as problem:
        return Looked(broker=broker, trouble=f"does not answer ({type(problem).__name__})")
    try:
        return Looked(broker=broker, queues=[_declared(connection, name) for name in names])
    except (AMQPError, OSError) as problem:
        return Looked(broker=broker, trouble=f"went away ({type(problem).__name__})")
    finally:
        if connection.is_open:
            connection.close()


def _declared(connection: pika.BlockingConnection, name: str) -> QueueLook:
    """Ask for a queue without making it; a missing one closes the channel, so each has its own."""
    channel = connection.channel()
    try:
        found = channel.queue_declare(name, passive=True).method
    except ChannelClosedByBroker as closed:
        return QueueLook(name=name, waiting=None, trouble=closed.reply_text)
    channel.close()
    return QueueLook(name=name, waiting=found.message_count, consumers=found.consumer_count)
