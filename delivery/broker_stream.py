"""A stream of messages to one broker: taken at any time, many unconfirmed at once, each told how it ended.

``rabbitmq`` opens one for a call, ``dispatch`` one for a run. It lives in its caller's event loop and keeps one
connection for as long as it is used. Messages are persistent and mandatory; nothing is delivered before the
broker's confirm. Nothing is declared: queues and exchanges are the customer's.

One message that closes the channel (no such exchange, no permission, too large) is settled alone, and
the others are published again on a new channel. A lost connection is opened again, until a message has seen
two losses. What was published twice carries the same ``message_id``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pika.exceptions import ChannelClosedByBroker, ConnectionBlockedTimeout

from delivery.broker_faults import (
    Addressed,
    channel_closed_code,
    explain_open_error,
    find_blamed,
    unwritable,
)
from delivery.broker_link import Link, link_parameters, properties_of
from delivery.outcome import Code, Outcome

if TYPE_CHECKING:
    from pika.channel import Channel
    from pika.connection import Connection
    from pika.frame import Method
    from pika.spec import Basic, BasicProperties

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
"""How long a message may go without its confirm."""
_CONNECT_TIMEOUT_S = 10.0
_STACK_TIMEOUT_S = 15.0
_CLOSE_TIMEOUT_S = 1.0
_LEAST_TIMEOUT_S = 0.1
_MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024
_MOST_LOSSES = 2
_BLOCKED = "the broker takes no messages (memory or disk alarm)"

Cargo = TypeVar("Cargo")


@dataclass(kw_only=True, slots=True)
class _Letter(Generic[Cargo]):
    """A message whose end is not known yet."""

    cargo: Cargo
    addressed: Addressed
    until: float
    """Monotonic time, as ``sent_at``."""
    sent_at: float
    losses: int = 0
    """Connections that ended before its confirm."""


class Stream(Generic[Cargo]):
    """What waits, what is unconfirmed, and the connection; made and used inside one running event loop."""

    def __init__(
        self,
        url: str,
        ended: Callable[[Cargo, Outcome], None],
        *,
        window: int = 500,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Take whom to tell how each message ended, exactly once; ``window`` is how many may be unconfirmed."""
        self._loop = asyncio.get_running_loop()
        self._ended, self._window, self._timeout_s = ended, window, timeout_s
        self._fault, self._parameters = "", None
        try:
            self._parameters = link_parameters(url, timeout_s)
        except ValueError as error:
            self._fault = str(error)
        self._letters: dict[int, _Letter[Cargo]] = {}
        """By number, the oldest first."""
        self._last_number = 0
        self._waiting: deque[int] = deque()
        self._unconfirmed: dict[int, int] = {}
        """Delivery tag to number, oldest first; tags start anew with each channel."""
        self._bytes_in_flight = 0
        self._next_tag = 1
        self._returned: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
        """What the broker said of those that it gave back and did not confirm yet, each time."""
        self._connection: Link | None = None
        self._channel: Channel | None = None
        self._heard_at = 0.0
        """When the broker spoke of a message last."""
        self._is_blocked = self._is_closing = False
        self._alarm: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._gone.set()

    def add(self, letters: Iterable[tuple[Cargo, Addressed]]) -> None:
        """Publish these too. What can't be is told before this returns; a broker's fault raises nothing."""
        now = time.monotonic()
        until = now + self._timeout_s
        for cargo, addressed in letters:
            self._last_number = number = self._last_number + 1
            self._letters[number] = _Letter(
                cargo=cargo, addressed=addressed, until=until, sent_at=now
            )
            if self._parameters is None:
                self._settle(number, Code.RABBITMQ_NOT_CONFIGURED, self._fault)
            elif fault := unwritable(addressed):
                self._settle(number, Code.INVALID_DESTINATION, fault)
            else:
                self._waiting.append(number)
        if not self._waiting:
            return
        self._watch()
        if self._connection is None:
            self._connect()
        self._pump()

    async def close(self) -> None:
        """Say goodbye, for a second at most; of what is open then nothing is told."""
        self._is_closing = True
        self._letters.clear()
        self._waiting.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        connection = self._connection
        # One that is still opening ends by its own timeout: pika 1.4 fails on closing it.
        if connection is not None and connection.is_open:
            connection.close()
        try:
            await asyncio.wait_for(self._gone.wait(), _CLOSE_TIMEOUT_S)
        except TimeoutError:
            if connection is not None and connection.is_closing:
                connection.cut("the broker did not answer connection.close")

    # The connection and its channel.

    def _connect(self) -> None:
        if self._parameters is None or not self._letters:
            return
        oldest = next(iter(self._letters.values()))
        left_s = max(oldest.until - time.monotonic(), _LEAST_TIMEOUT_S)
        self._parameters.socket_timeout = min(_CONNECT_TIMEOUT_S, left_s)
        self._parameters.stack_timeout = min(_STACK_TIMEOUT_S, left_s)
        self._is_blocked = False
        self._gone.clear()
        self._connection = Link(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_closed,
            custom_ioloop=self._loop,
        )

    def _on_open(self, connection: Connection) -> None:
        if self._is_closing or connection is not self._connection:
            connection.close()
            return
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel()

    def _open_channel(self) -> None:
        """Start a channel anew, with all that was unconfirmed on the last one waiting again."""
        self._take_back()
        if self._connection is not None and self._connection.is_open:
            self._connection.channel(on_open_callback=self._on_channel_open)

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._returned.clear()
        self._bytes_in_flight = 0
        self._next_tag = 1
        self._channel = None

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_returned)
        channel.confirm_delivery(self._on_confirmed, lambda _frame: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        if channel.connection is self._connection:
            self._channel = channel
            self._heard_at = time.monotonic()
            self._pump()

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        # A channel that went with its connection is dealt with when the connection's end is told.
        if self._is_closing or channel.connection is not self._connection:
            return
        if not isinstance(reason, ChannelClosedByBroker):
            return
        open_ones = {n: letter.addressed for n, letter in self._letters.items()}
        # An unknown complaint is about the oldest: whatever else, each round settles one.
        code = channel_closed_code(reason)
        for number in find_blamed(open_ones, reason) or list(open_ones)[:1]:
            self._settle(number, code, reason.reply_text, error=reason)
        self._forget_settled()
        self._open_channel()

    def _forget_settled(self) -> None:
        self._unconfirmed = {t: n for t, n in self._unconfirmed.items() if n in self._letters}
        self._bytes_in_flight = sum(map(self._size, self._unconfirmed.values()))
        self._waiting = deque(n for n in self._waiting if n in self._letters)

    def _on_open_error(self, connection: Connection, error: BaseException) -> None:
        if connection is not self._connection:
            return
        self._forget_connection()
        self._end(*explain_open_error(error), error=error)

    def _on_closed(self, connection: Connection, reason: BaseException) -> None:
        if connection is not self._connection:
            return
        self._forget_connection()
        if isinstance(reason, ConnectionBlockedTimeout):
            self._end(Code.BROKER_BLOCKED, _BLOCKED, error=reason)
            return
        self._lose(reason)

    def _forget_connection(self) -> None:
        self._connection = None
        self._take_back()
        self._gone.set()

    def _lose(self, reason: BaseException) -> None:
        """Open the connection again for those that saw it lost for the first time."""
        for letter in self._letters.values():
            letter.losses += 1
        detail = "the connection to the broker was lost twice"
        for number, letter in list(self._letters.items()):
            if letter.losses >= _MOST_LOSSES:
                self._settle(number, Code.CONNECTION_ERROR, detail, error=reason)
        self._forget_settled()
        # Whoever was just told may have added more, and so connected already.
        if self._connection is None and not self._is_closing:
            self._connect()

    def _on_blocked(self, _connection: Connection, _frame: object) -> None:
        self._is_blocked = True

    def _on_unblocked(self, _connection: Connection, _frame: object) -> None:
        self._is_blocked = False
        self._pump()

    # The messages.

    def _pump(self) -> None:
        """Publish while there is room in the window, all in one piece."""
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or not channel.is_open:
            return
        with connection.joined():
            while self._waiting and self._has_room():
                number = self._waiting.popleft()
                if number in self._letters:
                    self._publish(channel, number)

    def _publish(self, channel: Channel, number: int) -> None:
        letter = self._letters[number]
        addressed, message = letter.addressed, letter.addressed.message
        letter.sent_at = time.monotonic()
        try:
            channel.basic_publish(
                addressed.exchange,
                addressed.routing_key,
                message.body,
                properties_of(message),
                mandatory=True,
            )
        except (
            Exception
        ) as error:  # of one message; pika writes nothing of what it cannot write whole
            logger.exception("publishing failed", extra={"result": message.id})
            self._settle(number, Code.INTERNAL_ERROR, "see the log of the worker", error=error)
            return
        self._unconfirmed[self._next_tag] = number
        self._next_tag += 1
        self._bytes_in_flight += len(message.body)

    def _has_room(self) -> bool:
        if self._is_blocked or self._is_closing or len(self._unconfirmed) >= self._window:
            return False
        return not self._unconfirmed or self._bytes_in_flight < _MAX_BYTES_IN_FLIGHT

    def _on_returned(
        self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        # The confirm of a returned message follows, and is positive.
        key = (method.exchange or "", method.routing_key or "", properties.message_id or "")
        self._returned[key].append(method.reply_text or "")

    def _on_confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        confirm = frame.method
        tags = [confirm.delivery_tag]
        if confirm.multiple:
            tags = list(takewhile(lambda tag: tag <= confirm.delivery_tag, self._unconfirmed))
        is_nack = confirm.NAME == "Basic.Nack"
        self._heard_at = time.monotonic()
        for tag in tags:
            number = self._unconfirmed.pop(tag, None)
            if (
                number is not None and number in self._letters
            ):  # else it is overdue, and was told so
                self._bytes_in_flight -= self._size(number)
                self._settle(number, *self._judge(number, is_nack=is_nack))
        if len(self._unconfirmed) <= self._window // 2:  # many go out at once, not one for each
            self._pump()

    def _size(self, number: int) -> int:
        return len(self._letters[number].addressed.message.body)

    def _judge(self, number: int, *, is_nack: bool) -> tuple[Code, str]:
        addressed = self._letters[number].addressed
        if is_nack:
            return Code.NACKED, "the broker did not take it (a full queue?)"
        key = (addressed.exchange, addressed.routing_key, addressed.message.id)
        if not self._returned or not (said_of_it := self._returned.get(key)):
            return Code.DELIVERED, ""
        reply_text = said_of_it.pop(0)
        if not said_of_it:
            del self._returned[key]
        if not addressed.exchange:
            return Code.QUEUE_NOT_FOUND, f"there is no queue {addressed.routing_key!r}"
        said = f"no queue is bound to {addressed.exchange!r} for {addressed.routing_key!r}"
        return Code.UNROUTABLE, f"{said} ({reply_text})"

    # The end.

    def _settle(
        self, number: int, code: Code, detail: str, *, error: BaseException | None = None
    ) -> None:
        letter = self._letters.pop(number)
        duration_s = time.monotonic() - letter.sent_at
        outcome = Outcome(
            code=code,
            detail=detail,
            address=f"{self._parameters.host}:{self._parameters.port}" if self._parameters else "",
            started_at=datetime.now(UTC) - timedelta(seconds=duration_s),
            duration_s=duration_s,
            error=type(error).__name__ if error else "",
        )
        self._ended(letter.cargo, outcome)

    def _end(self, code: Code, detail: str, *, error: BaseException | None = None) -> None:
        """Settle all that is open."""
        for number in list(self._letters):
            self._settle(number, code, detail, error=error)
        self._forget_settled()

    def _watch(self) -> None:
        """Come back when the oldest is overdue."""
        if self._alarm is None and self._letters:
            oldest = next(iter(self._letters.values()))
            left_s = max(0.0, oldest.until - time.monotonic())
            self._alarm = self._loop.call_later(left_s, self._on_overdue)

    def _on_overdue(self) -> None:
        self._alarm = None
        now = time.monotonic()
        overdue = dict(takewhile(lambda one: one[1].until <= now, self._letters.items()))
        is_silent = any(letter.sent_at >= self._heard_at for letter in overdue.values())
        code, detail = Code.TIMEOUT, "the broker did not confirm in time"
        if self._is_blocked:
            code, detail = Code.BROKER_BLOCKED, _BLOCKED
        for number in overdue:
            self._settle(number, code, detail)
        self._forget_settled()
        connection = self._connection
        if is_silent and not self._is_blocked and connection is not None and connection.is_open:
            # It may be dead, and heartbeats take minutes to tell.
            connection.cut("the broker says nothing")
        self._watch()
        self._pump()
