"""The connection of a stream to its broker: how it is opened, how a message is written, and cheaply so.

Only ``broker_stream`` uses this; docs/decisions/0013 says why it reaches into pika.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from delivery.outcome import Message

_HEARTBEAT_S = 60
_PERSISTENT: Literal[2] = 2


class Link(AsyncioConnection):
    """A connection that hands its socket in one piece what is published together.

    pika sends each of a message's frames by itself, and each sending costs more than making it.
    """

    _held: list[bytes] | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Hold back what is written meanwhile, and write it at the end."""
        self._held = []
        try:
            yield
        finally:
            pieces, self._held = self._held, None
            if pieces:
                super()._adapter_emit_data(b"".join(pieces))  # type: ignore[misc]  # private

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._held is None:
            super()._adapter_emit_data(data)  # type: ignore[misc]  # private
        else:
            self._held.append(data)

    def cut(self, why: str) -> None:
        """Drop the socket without a goodbye; pika has no public way."""
        self._terminate_stream(TimeoutError(why))  # type: ignore[attr-defined]  # private


def link_parameters(url: str, timeout_s: float) -> pika.URLParameters:
    """Return where to connect and how; raise ValueError for a URL that says nothing of that."""
    if not url:
        raise ValueError("RABBITMQ_URL is not set")
    try:
        parameters = pika.URLParameters(url)
        is_amqp = urlsplit(url).scheme in {"amqp", "amqps"}
    except (ValueError, TypeError):
        is_amqp = False
    if not is_amqp:
        raise ValueError("RABBITMQ_URL is not a valid amqp:// or amqps:// URL") from None
    parameters.connection_attempts = 1
    parameters.heartbeat = _HEARTBEAT_S
    parameters.blocked_connection_timeout = timeout_s
    parameters.client_properties = {"connection_name": "batcher delivery"}
    return parameters


def properties_of(message: Message) -> pika.BasicProperties:
    """Return what stands beside a message's body: its id, its headers, that it outlives a restart."""
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        correlation_id=message.correlation_id or None,
        headers={
            name: value.encode("utf-8", "replace").decode() for name, value in message.headers
        },
    )
