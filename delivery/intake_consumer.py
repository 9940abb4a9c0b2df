"""Take requests from a RabbitMQ queue, for ever: the connection's side.

`manage.py intake` calls `consume`. One connection on one thread; messages go onto a desk (`intake_desk`), whose
thread stores them, so that heartbeats are answered while the database is slow. A message is acknowledged
after the commit, many by one frame; a refused one goes to the queue's dead letter exchange.
Whatever is lost (connection, channel, the queue itself) is tried again after 1, 2, 4 … 30 seconds; what was
handed out and not settled comes again, and finds itself stored. Nothing a message holds can end the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pika
from pika.exceptions import AMQPError, ChannelClosed, ChannelClosedByBroker, ConnectionClosed

from delivery.broker_faults import explain_open_error
from delivery.intake_desk import Delivered, Desk, State, growing
from delivery.intake_messages import arrived

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
    from pika.spec import Basic, BasicProperties

logger = logging.getLogger(__name__)

CONNECTION_NAME: Final = "batcher intake"
_LONGEST_PAUSE_S = 30.0
_HEARTBEAT_S = 30
_PUMP_S = 0.5
_TRICKLE_S = 0.2
_STOP_WITHIN_S = 5.0
_NOT_FOUND = 404


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where requests are taken from."""

    url: str
    queue: str
    prefetch: int = 1_000
    """How many messages the broker may hand out ahead; quorum queues allow 2,000."""
    is_declared_by_us: bool = False
    """Make the queue, and one for what is refused, when there is none."""


class _Lost(Exception):
    """There is nothing to consume from now; says what the operator sees."""

    def __init__(self, state: str, detail: str) -> None:
        super().__init__(detail)
        self.state, self.detail = state, detail


def consume(source: Source, stop: threading.Event) -> None:
    """Take requests in until ``stop`` is set; what is being stored then is stored and settled first."""
    with Desk(source.queue, url=source.url, prefetch=source.prefetch, stop=stop) as desk:
        pauses = growing(1.0, _LONGEST_PAUSE_S)
        while not stop.is_set():
            session = _Session(source, desk, stop)
            lost = session.run()
            if lost is None:
                break
            if session.has_consumed:
                pauses = growing(1.0, _LONGEST_PAUSE_S)
            desk.say(lost.state, lost.detail)
            stop.wait(next(pauses))


class _Session:
    """One connection, from its opening to its end; the origin of the messages that came by it."""

    def __init__(self, source: Source, desk: Desk, stop: threading.Event) -> None:
        self.is_open = False
        self.has_consumed = False
        self._source, self._desk, self._stop = source, desk, stop
        self._connection: BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._consumer_tag = ""
        self._is_cancelled = False

    def run(self) -> _Lost | None:
        """Consume until something is lost, and return what; None when it was asked to stop."""
        try:
            self._open()
            while not self._stop.is_set():
                self._follow_pause()
                self._pump()
            self._wait_for_desk()
        except _Lost as lost:
            return lost
        except (AMQPError, OSError) as problem:
            return _Lost(State.DISCONNECTED, _explain(problem))
        except Exception as problem:  # whatever pika makes of a bad day: the loop goes on
            logger.exception("intake session broke down", extra={"queue": self._source.queue})
            return _Lost(State.DISCONNECTED, f"{type(problem).__name__}; the log has more")
        finally:
            self.is_open = False
            self._close()
        return None

    def settle(self, settled: Sequence[tuple[int, bool]]) -> None:
        """Tell the broker of each (delivery tag, is refused), oldest first; from any thread."""
        try:
            if self._connection is not None and self.is_open:
                self._connection.add_callback_threadsafe(partial(self._settle, settled))
        except AMQPError:  # it closed this moment: the broker hands them out again
            logger.info("messages not settled", extra={"queue": self._source.queue})

    def _settle(self, settled: Sequence[tuple[int, bool]]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        last_taken = 0
        for tag, is_refused in settled:
            if is_refused:
                channel.basic_reject(tag, requeue=False)
            else:
                last_taken = tag
        if last_taken:
            # All older ones are settled: chunks end in the order in which their messages came.
            channel.basic_ack(last_taken, multiple=True)

    def _open(self) -> None:
        try:
            parameters = pika.URLParameters(self._source.url)
        except (ValueError, TypeError):
            raise _Lost(State.DISCONNECTED, "RABBITMQ_URL is not a valid URL") from None
        parameters.heartbeat = _HEARTBEAT_S
        parameters.connection_attempts = 1
        parameters.socket_timeout, parameters.stack_timeout = 10.0, 15.0
        parameters.client_properties = {"connection_name": CONNECTION_NAME}
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._channel_of_queue(self._connection)
        self._channel.basic_qos(prefetch_count=self._source.prefetch)
        self._channel.add_on_cancel_callback(self._on_cancel)
        self.is_open = True

    def _channel_of_queue(self, connection: BlockingConnection) -> BlockingChannel:
        """Return a channel after a look whether the queue is there. Raises _Lost."""
        queue = self._source.queue
        try:
            channel = connection.channel()
            channel.queue_declare(queue, passive=True)
            return channel
        except ChannelClosedByBroker as closed:
            if closed.reply_code != _NOT_FOUND:
                raise _Lost(State.DISCONNECTED, closed.reply_text) from closed
            if not self._source.is_declared_by_us:
                raise _Lost(State.QUEUE_MISSING, f"there is no queue {queue!r}") from closed
        channel = connection.channel()
        try:
            _declare(channel, queue)
        except ChannelClosedByBroker as closed:
            raise _Lost(State.QUEUE_MISSING, closed.reply_text) from closed
        return channel

    def _follow_pause(self) -> None:
        """Begin to consume, or stop it for as long as maintenance lasts; nothing is handed back for it."""
        if self._channel is None:
            raise AssertionError("opened before it is used")
        if self._desk.is_paused:
            if self._consumer_tag:
                self._channel.basic_cancel(self._consumer_tag)
                self._consumer_tag = ""
            self._desk.say(State.PAUSED, "maintenance mode")
        elif not self._consumer_tag:
            self._consumer_tag = self._channel.basic_consume(self._source.queue, self._on_message)
            self.has_consumed = True
            self._desk.say(State.CONSUMING)

    def _pump(self) -> None:
        """Let the connection live; read no more than it needs for that while the desk is full."""
        if self._connection is None:
            raise AssertionError("opened before it is used")
        if self._desk.is_full:
            self._stop.wait(_TRICKLE_S)
            self._connection.process_data_events(time_limit=0)  # at most 100 kB
        else:
            self._connection.process_data_events(time_limit=_PUMP_S)
        if self._is_cancelled:
            raise _Lost(State.QUEUE_MISSING, "the queue was deleted")

    def _on_cancel(self, _frame: object) -> None:
        self._is_cancelled = True

    def _on_message(
        self,
        _channel: BlockingChannel,
        method: Basic.Deliver,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        message = arrived(body, properties, is_redelivered=bool(method.redelivered))
        tag = int(method.delivery_tag or 0)
        self._desk.put(Delivered(origin=self, tag=tag, message=message))

    def _wait_for_desk(self) -> None:
        """Settle the chunk at hand before the goodbye."""
        waited_s = 0.0
        while self._connection and self._desk.is_at_work and waited_s < _STOP_WITHIN_S:
            self._connection.process_data_events(time_limit=0.1)
            waited_s += 0.1
        if self._connection:
            self._connection.process_data_events(time_limit=0)

    def _close(self) -> None:
        if self._connection is None or not self._connection.is_open:
            return
        try:
            self._connection.close()
        except (AMQPError, OSError) as problem:
            facts = {"queue": self._source.queue, "error": type(problem).__name__}
            logger.info("intake connection did not close in peace", extra=facts)


def _declare(channel: BlockingChannel, queue: str) -> None:
    """Make a quorum queue whose refused messages go to another one, and both survive anything."""
    refused = f"{queue}.rejected"
    channel.queue_declare(refused, durable=True, arguments={"x-queue-type": "quorum"})
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": refused,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what at-least-once needs
    }
    channel.queue_declare(queue, durable=True, arguments=arguments)


def _explain(problem: Exception) -> str:
    if isinstance(problem, (ChannelClosed, ConnectionClosed)):
        return problem.reply_text
    return explain_open_error(problem)[1]
