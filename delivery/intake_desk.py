"""Where messages from the input queue are put, stored many at a time, and settled: the database's side.

A desk is a buffer and one thread. The consumer's thread puts messages on it and goes on with the broker's
heartbeats, however long the database takes; the desk's thread takes up to half of what the broker may have
handed out, stores it in one go, replies to senders who asked, and has the lot settled. It also watches the
maintenance flag and writes the consumer's status, so that one thread holds the one database connection.

While storing can't work, messages are held, unsettled, and stored again after a pause that grows to
30 seconds. They are not handed back: each return counts towards a quorum queue's delivery limit, past
which the broker throws a message out. Their number is bounded by the prefetch, their bytes by
`is_full`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from django.db import close_old_connections, connection
from django.utils import timezone

from batching.models import Flag
from batching.models.keys import new_key
from delivery.intake_messages import Arrived, Reply, read
from delivery.intake_storing import TROUBLE, Read, Verdict, note_status, store
from delivery.models import IntakeStatus
from delivery.outcome import Message
from delivery.rabbitmq import Addressed, publish

logger = logging.getLogger(__name__)

State = IntakeStatus.State

MOST_BYTES_HELD: Final = 64 * 1024 * 1024
_MOST_BYTES, _MOST_LINES = 16 * 1024 * 1024, 2_000
"""Of one chunk; the message that goes past a bound is its last."""
_LINGER_S = 0.05
"""How long a chunk that is not full waits for more."""
_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 10.0
_REPLY_TIMEOUT_S = 10.0


class Origin(Protocol):
    """The channel that messages came by."""

    @property
    def is_open(self) -> bool:
        """False once the broker has taken back what was not settled."""

    def settle(self, settled: Sequence[tuple[int, bool]]) -> None:
        """Tell the broker of each (delivery tag, is refused), oldest first; from any thread."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A message on the desk."""

    origin: Origin
    tag: int
    message: Arrived


Chunk = list[tuple[Delivered, Read]]


def growing(first_s: float, most_s: float) -> Iterator[float]:
    """Yield pauses that double up to ``most_s``, for ever."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, most_s)


class Desk:
    """The desk of one input queue. Use as a context: its thread ends with the block."""

    def __init__(self, queue_name: str, *, url: str, prefetch: int, stop: threading.Event) -> None:
        self.is_paused = True
        """Maintenance mode; true until the flag could be read for the first time."""
        self._queue, self._url, self._stop = queue_name, url, stop
        self._most_messages = max(2, prefetch // 2)
        self._waiting: queue.SimpleQueue[Delivered] = queue.SimpleQueue()
        self._bytes_held = 0
        self._lock = threading.Lock()
        self._status, self._since = (State.DISCONNECTED.value, "not connected yet"), timezone.now()
        self._status_told: tuple[str, str] | None = None
        self._looked_at = self._told_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="intake-desk", daemon=True)

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_at_work(self) -> bool:
        """Whether its thread still runs; it ends with the chunk at hand once it is to stop."""
        return self._thread.is_alive()

    @property
    def is_full(self) -> bool:
        """Whether so many bytes lie here that no more should be read than heartbeats need."""
        return self._bytes_held > MOST_BYTES_HELD

    def put(self, delivered: Delivered) -> None:
        """Take a message; returns at once."""
        with self._lock:
            self._bytes_held += len(delivered.message.body)
        self._waiting.put(delivered)

    def say(self, state: str, detail: str = "") -> None:
        """Note how the consumer is; written down within a second."""
        if (state, detail) != self._status:
            self._since, self._status = timezone.now(), (state, detail)
            facts = {"queue": self._queue, "state": state, "detail": detail}
            logger.log(_LEVELS.get(state, logging.INFO), "intake state changed", extra=facts)

    # The desk's own thread, from here on.

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._look_around()
                chunk = self._next_chunk()
                if chunk:
                    self._store(chunk)
            self.say(State.STOPPED)
            self._look_around(is_last=True)
        except Exception:
            logger.exception("intake desk broke down", extra={"queue": self._queue})
            raise
        finally:
            self._stop.set()  # without its desk a consumer would only fill memory
            connection.close()

    def _next_chunk(self) -> Chunk:
        """Wait a second for a message, then take those that come close behind it."""
        chunk: Chunk = []
        self._take(chunk, 1, _LOOK_EVERY_S)
        if chunk:
            self._take(chunk, self._most_messages, _LINGER_S)
        return chunk

    def _take(self, chunk: Chunk, most: int, wait_s: float) -> None:
        """Fill ``chunk`` up to ``most`` messages, or what is a chunk by bytes or lines."""
        size_bytes = sum(len(delivered.message.body) for delivered, _ in chunk)
        lines = sum(len(each.contents.lines) for _, each in chunk)
        until = time.monotonic() + wait_s
        # A second message is always taken: storing tells a bad message by the others.
        while len(chunk) < 2 or (size_bytes < _MOST_BYTES and lines < _MOST_LINES):
            if len(chunk) >= most:
                return
            left_s = until - time.monotonic()
            try:
                # What is there already is taken even when the time is up.
                delivered = self._waiting.get(block=left_s > 0, timeout=max(left_s, 0))
            except queue.Empty:
                return
            if not delivered.origin.is_open:
                self._release(len(delivered.message.body))
                continue
            contents = read(delivered.message.body)
            chunk.append((delivered, Read(message=delivered.message, contents=contents)))
            size_bytes += len(delivered.message.body)
            lines += len(contents.lines)

    def _store(self, chunk: Chunk) -> None:
        """Store a chunk, however often it takes, then reply and settle."""
        for pause_s in growing(0.2, 30.0):
            self._drop_what_comes_again(chunk)
            try:
                close_old_connections()
                verdicts = store(self._queue, [each for _, each in chunk], now=timezone.now())
                break
            except TROUBLE as problem:
                facts = {"queue": self._queue, "pause_s": pause_s, "error": str(problem)[:200]}
                logger.warning("messages not stored, will retry", extra=facts)
                connection.close()
            if self._stop.wait(pause_s):
                return
            self._take(chunk, self._most_messages, 0)
        self._reply(chunk, verdicts)
        settled: dict[Origin, list[tuple[int, bool]]] = {}
        for (delivered, _), verdict in zip(chunk, verdicts, strict=True):
            settled.setdefault(delivered.origin, []).append((delivered.tag, bool(verdict.faults)))
        for origin, tags in settled.items():
            origin.settle(tags)
        self._release(sum(len(delivered.message.body) for delivered, _ in chunk))

    def _drop_what_comes_again(self, chunk: Chunk) -> None:
        """Drop messages of a channel that is gone: the broker hands them out anew."""
        gone = [each for each in chunk if not each[0].origin.is_open]
        self._release(sum(len(delivered.message.body) for delivered, _ in gone))
        chunk[:] = [each for each in chunk if each[0].origin.is_open]

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes_held -= size_bytes

    def _reply(self, chunk: Chunk, verdicts: Sequence[Verdict]) -> None:
        """Tell senders who asked. Best effort: a reply that nobody takes is logged and forgotten."""
        replies = [
            _reply_to(delivered.message, verdict)
            for (delivered, _), verdict in zip(chunk, verdicts, strict=True)
            if delivered.message.reply_to
        ]
        outcomes = publish(self._url, replies, timeout_s=_REPLY_TIMEOUT_S)
        lost = [outcome for outcome in outcomes if not outcome.is_delivered]
        if lost:
            facts = {"queue": self._queue, "count": len(lost), "first": lost[0].detail}
            logger.warning("replies not delivered", extra=facts)

    def _look_around(self, *, is_last: bool = False) -> None:
        """Once a second: read the maintenance flag, and write the status when it changed or got old."""
        now_s = time.monotonic()
        if not is_last and now_s - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now_s
        try:
            close_old_connections()
            self.is_paused = Flag.is_raised(Flag.MAINTENANCE)
            status = self._status
            if status != self._status_told or now_s - self._told_at > _TELL_EVERY_S:
                note_status(self._queue, *status, since=self._since, now=timezone.now())
                self._status_told, self._told_at = status, now_s
        except TROUBLE as problem:
            facts = {"queue": self._queue, "error": str(problem)[:200]}
            logger.warning("intake could not look around", extra=facts)
            connection.close()


_LEVELS: dict[str, int] = {
    State.QUEUE_MISSING: logging.WARNING,
    State.DISCONNECTED: logging.WARNING,
}


def _reply_to(message: Arrived, verdict: Verdict) -> Addressed:
    body = msgspec.json.encode(Reply(accepted=verdict.taken, errors=verdict.faults))
    reply = Message(id=new_key("rep"), body=body, correlation_id=message.correlation_id)
    return Addressed(message=reply, routing_key=message.reply_to)
