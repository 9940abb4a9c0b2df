"""Publish results to RabbitMQ, many unconfirmed at a time, and say how each one ended.

``dispatch`` calls ``publish`` with a chunk, on a thread of a worker. Each call has a connection of its
own: pika's connections survive neither threads nor forks, nor idling without an I/O loop, and
opening one takes a hundredth of a chunk's time. Messages are persistent and mandatory; nothing is
delivered before the broker's confirm. Nothing is declared: queues and exchanges are the customer's.

One message that closes the channel (no such exchange, no permission, too large) is settled alone, and
the others are published again on a new channel. A lost connection is opened once more. What was
published twice carries the same ``message_id``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionBlockedTimeout,
)

from delivery.broker_faults import (
    Addressed,
    channel_closed_code,
    explain_open_error,
    find_blamed,
    unwritable,
)
from delivery.outcome import Code, Message, Outcome

if TYPE_CHECKING:
    from pika.channel import Channel
    from pika.connection import Connection
    from pika.frame import Method
    from pika.spec import Basic, BasicProperties

__all__ = ["Addressed", "publish"]

_HEARTBEAT_S = 60
_CONNECT_TIMEOUT_S = 10.0
_STACK_TIMEOUT_S = 15.0
_CLOSE_TIMEOUT_S = 1.0
_LEAST_TIMEOUT_S = 0.1
_MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024
_PERSISTENT: Literal[2] = 2


def publish(
    url: str, messages: Sequence[Addressed], *, window: int = 500, timeout_s: float = 30.0
) -> list[Outcome]:
    """Publish all and return their outcomes in the same order.

    Blocks for ``timeout_s`` at most, and a second for the goodbye. ``window`` is how many may be
    unconfirmed at a time. A broker's fault raises nothing. Safe on any thread, after any fork.
    """
    if not messages:
        return []
    if not url:
        return _all(messages, Code.RABBITMQ_NOT_CONFIGURED, "RABBITMQ_URL is not set")
    parameters = _parameters(url, timeout_s)
    if parameters is None:
        detail = "RABBITMQ_URL is not a valid amqp:// or amqps:// URL"
        return _all(messages, Code.RABBITMQ_NOT_CONFIGURED, detail)
    return _Publishing(parameters, messages, window).run(timeout_s)


def _all(messages: Sequence[Addressed], code: Code, detail: str) -> list[Outcome]:
    return [Outcome(code=code, detail=detail) for _ in messages]


def _parameters(url: str, timeout_s: float) -> pika.URLParameters | None:
    try:
        if urlsplit(url).scheme not in {"amqp", "amqps"}:
            return None
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError):
        return None
    parameters.connection_attempts = 1
    parameters.heartbeat = _HEARTBEAT_S
    parameters.blocked_connection_timeout = timeout_s
    parameters.client_properties = {"connection_name": "batcher delivery"}
    return parameters


class _Publishing:
    """One call of ``publish``: its connection, what waits, what is unconfirmed, what is settled."""

    def __init__(
        self, parameters: pika.URLParameters, messages: Sequence[Addressed], window: int
    ) -> None:
        self._parameters = parameters
        self._messages = messages
        self._window = window
        self._address = f"{parameters.host}:{parameters.port}"
        self._outcomes: list[Outcome | None] = [None] * len(messages)
        self._sent_at = [time.monotonic()] * len(messages)
        self._waiting: deque[int] = deque()
        self._unconfirmed: dict[int, int] = {}
        """Delivery tag to index of the message, oldest first; tags start anew with each channel."""
        self._bytes_in_flight = 0
        self._returned: dict[tuple[str, str, str], str] = {}
        self._unsettled = len(messages)
        self._deadline = 0.0
        self._next_tag = 1
        self._reopenings_left = 1
        self._is_blocked = False
        self._is_ending = False
        self._loop = IOLoop()
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None

    def run(self, timeout_s: float) -> list[Outcome]:
        """Publish until all is settled or time is up."""
        for index, addressed in enumerate(self._messages):
            fault = unwritable(addressed)
            if fault:
                self._settle(index, Code.INVALID_DESTINATION, fault)
            else:
                self._waiting.append(index)
        try:
            if self._unsettled:
                self._deadline = time.monotonic() + timeout_s
                self._loop.call_later(timeout_s, self._on_deadline)
                self._connect()
                self._loop.start()
        finally:
            self._loop.close()
        return [outcome for outcome in self._outcomes if outcome is not None]

    # The connection and its channel.

    def _connect(self) -> None:
        left_s = max(self._deadline - time.monotonic(), _LEAST_TIMEOUT_S)
        self._parameters.socket_timeout = min(_CONNECT_TIMEOUT_S, left_s)
        self._parameters.stack_timeout = min(_STACK_TIMEOUT_S, left_s)
        self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_closed,
            custom_ioloop=self._loop,
        )

    def _on_open(self, connection: Connection) -> None:
        if self._is_ending:
            connection.close()
            return
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel()

    def _open_channel(self) -> None:
        """Start a channel anew, with all that was unconfirmed on the last one waiting again."""
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._returned.clear()
        self._bytes_in_flight = 0
        self._next_tag = 1
        self._channel = None
        if self._connection is not None and self._connection.is_open:
            self._connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_returned)
        channel.confirm_delivery(self._on_confirmed, lambda _frame: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._channel = channel
        self._pump()

    def _on_channel_closed(self, _channel: Channel, reason: Exception) -> None:
        # A channel that went with its connection is dealt with when the connection's end is told.
        if self._is_ending or not isinstance(reason, ChannelClosedByBroker):
            return
        open_ones = [*self._unconfirmed.values(), *self._waiting]
        blamed = find_blamed(self._messages, open_ones, reason)
        # An unknown complaint is about the oldest: whatever else, each round settles one.
        code = channel_closed_code(reason)
        for index in blamed or open_ones[:1]:
            self._settle(index, code, reason.reply_text, error=reason)
        self._forget_settled()
        if self._unsettled:
            self._open_channel()

    def _forget_settled(self) -> None:
        self._unconfirmed = {
            tag: index for tag, index in self._unconfirmed.items() if self._outcomes[index] is None
        }
        self._waiting = deque(i for i in self._waiting if self._outcomes[i] is None)

    def _on_open_error(self, _connection: Connection, error: BaseException) -> None:
        if self._is_ending:
            self._loop.stop()
            return
        self._end(*explain_open_error(error), error=error)

    def _on_closed(self, _connection: Connection, reason: BaseException) -> None:
        if self._is_ending:
            self._loop.stop()
        elif isinstance(reason, ConnectionBlockedTimeout):
            detail = "the broker takes no messages (memory or disk alarm)"
            self._end(Code.BROKER_BLOCKED, detail, error=reason)
        elif self._reopenings_left:
            self._reopenings_left -= 1
            self._is_blocked = False
            self._connect()
        else:
            detail = "the connection to the broker was lost twice"
            self._end(Code.CONNECTION_ERROR, detail, error=reason)

    def _on_blocked(self, _connection: Connection, _frame: object) -> None:
        self._is_blocked = True

    def _on_unblocked(self, _connection: Connection, _frame: object) -> None:
        self._is_blocked = False
        self._pump()

    # The messages.

    def _pump(self) -> None:
        """Publish while there is room in the window."""
        while self._waiting and self._channel is not None and self._has_room():
            index = self._waiting.popleft()
            addressed = self._messages[index]
            self._unconfirmed[self._next_tag] = index
            self._next_tag += 1
            self._bytes_in_flight += len(addressed.message.body)
            self._sent_at[index] = time.monotonic()
            self._channel.basic_publish(
                addressed.exchange,
                addressed.routing_key,
                addressed.message.body,
                _properties(addressed.message),
                mandatory=True,
            )

    def _has_room(self) -> bool:
        if self._is_blocked or self._is_ending or len(self._unconfirmed) >= self._window:
            return False
        return not self._unconfirmed or self._bytes_in_flight < _MAX_BYTES_IN_FLIGHT

    def _on_returned(
        self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        # The confirm of a returned message follows, and is positive.
        key = (method.exchange or "", method.routing_key or "", properties.message_id or "")
        self._returned[key] = method.reply_text or ""

    def _on_confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        confirm = frame.method
        tags = [confirm.delivery_tag]
        if confirm.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= confirm.delivery_tag]
        is_nack = confirm.NAME == "Basic.Nack"
        for tag in tags:
            index = self._unconfirmed.pop(tag)
            self._bytes_in_flight -= len(self._messages[index].message.body)
            self._settle(index, *self._judge(index, is_nack=is_nack))
        self._pump()

    def _judge(self, index: int, *, is_nack: bool) -> tuple[Code, str]:
        addressed = self._messages[index]
        if is_nack:
            return Code.NACKED, "the broker did not take it (a full queue?)"
        key = (addressed.exchange, addressed.routing_key, addressed.message.id)
        if key not in self._returned:
            return Code.DELIVERED, ""
        if not addressed.exchange:
            return Code.QUEUE_NOT_FOUND, f"there is no queue {addressed.routing_key!r}"
        said = f"no queue is bound to {addressed.exchange!r} for {addressed.routing_key!r}"
        return Code.UNROUTABLE, f"{said} ({self._returned[key]})"

    # The end.

    def _settle(
        self, index: int, code: Code, detail: str, *, error: BaseException | None = None
    ) -> None:
        duration_s = time.monotonic() - self._sent_at[index]
        self._outcomes[index] = Outcome(
            code=code,
            detail=detail,
            address=self._address,
            started_at=datetime.now(UTC) - timedelta(seconds=duration_s),
            duration_s=duration_s,
            error=type(error).__name__ if error else "",
        )
        self._unsettled -= 1
        if not self._unsettled:
            self._close()

    def _on_deadline(self) -> None:
        if self._is_blocked:
            self._end(Code.BROKER_BLOCKED, "the broker takes no messages (memory or disk alarm)")
        else:
            self._end(Code.TIMEOUT, "the broker did not confirm in time")

    def _end(self, code: Code, detail: str, *, error: BaseException | None = None) -> None:
        """Settle all that is open."""
        for index, outcome in enumerate(self._outcomes):
            if outcome is None:
                self._settle(index, code, detail, error=error)

    def _close(self) -> None:
        self._is_ending = True
        connection = self._connection
        if connection is None or connection.is_closed:
            self._loop.add_callback_threadsafe(self._loop.stop)
            return
        self._loop.call_later(_CLOSE_TIMEOUT_S, self._on_close_timeout)
        # One that is still opening ends by its own timeout: pika 1.4 fails on closing it.
        if connection.is_open:
            connection.close()

    def _on_close_timeout(self) -> None:
        """Drop the socket of a broker that does not answer our goodbye; pika has no public way."""
        if self._connection is None or not self._connection.is_closing:
            self._loop.stop()
            return
        self._connection._terminate_stream(  # type: ignore[attr-defined]  # private
            TimeoutError("the broker did not answer connection.close")
        )


def _properties(message: Message) -> pika.BasicProperties:
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        correlation_id=message.correlation_id or None,
        headers={
            name: value.encode("utf-8", "replace").decode() for name, value in message.headers
        },
    )
