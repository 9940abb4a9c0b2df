"""Calls that wait: how many may, and how each learns that what it waits for is there.

A call that waits holds a thread. The web server has `BATCHER_WAITERS` threads for those, beside the ones of all
other calls (`batcher.processes`), so the two never take each other's; `seat` gives them out, and no API key
gets all of them: its client may have gone, which the server can't see before it answers. While it waits
a call holds no database connection and asks nothing: one thread of the process asks one question for all
that wait for the same kind of thing (`Watch`), and only while someone waits. When a batch is answered very many
wake at once: they go on a few at a time, for all threads together work on no more than
`BATCHER_WEB_THREADS` calls (`at_work`), and so use no more connections. The views of calls that may
wait use this; it never knows what they wait for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from typing import Final, Generic, TypeVar

from django.conf import settings
from django.db import connection

logger = getLogger(__name__)

RETRY_AFTER_S: Final = 5
"""When to come again after there was no seat."""
_LOOK_EVERY_S = 0.5

T = TypeVar("T", bound=Hashable)

_seats = threading.Lock()
_seated = Counter[int]()
"""How many seats each API key has, by its id."""

_workplaces = threading.BoundedSemaphore(settings.BATCHER_WEB_THREADS)


class _Here(threading.local):
    """What this thread's call is at."""

    is_at_work = False
    has_waited = False


_here = _Here()


@contextmanager
def at_work() -> Iterator[None]:
    """Work on a call as soon as there is room for that; the room is given up while it waits."""
    with _workplaces:
        _here.is_at_work, _here.has_waited = True, False
        try:
            yield
        finally:
            _here.is_at_work = False
            if _here.has_waited:  # its thread may be one of very many: leave none a connection
                _give_connection_back()


@contextmanager
def _off_work() -> Iterator[None]:
    """Give up the room to work in, and the connection, for as long as the block takes."""
    _give_connection_back()
    if not _here.is_at_work:
        yield
        return
    _here.has_waited = True
    _workplaces.release()
    try:
        yield
    finally:
        _workplaces.acquire()


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Whether a call may wait."""

    is_given: bool
    why_not: str = ""
    """As the beginning of a sentence; empty when none was wanted."""


@contextmanager
def seat(key_id: int, *, is_wanted: bool = True) -> Iterator[Seat]:
    """Hold a seat for a call of that API key that may wait; none when too many have one."""
    with _seats:
        why_not = _why_no_seat(key_id) if is_wanted else ""
        is_given = is_wanted and not why_not
        _seated[key_id] += is_given
    try:
        yield Seat(is_given=is_given, why_not=why_not)
    finally:
        with _seats:
            _seated[key_id] -= is_given
            if not _seated[key_id]:
                del _seated[key_id]


def _why_no_seat(key_id: int) -> str:
    most: int = settings.BATCHER_WAITERS
    share = max(1, most * settings.BATCHER_WAITERS_PER_KEY_PERCENT // 100)
    if _seated.total() >= most:
        return f"{most} calls wait already"
    if _seated[key_id] >= share:
        return f"{share} calls of this API key wait already, of {most} that may wait in all"
    return ""


class Watch(Generic[T]):
    """Tells calls that wait when what each wants is there.

    ``find`` gets all that is wanted at the time, and returns those of it that are there by now.
    """

    def __init__(self, find: Callable[[Collection[T]], Collection[T]]) -> None:
        self._find = find
        self._gate = threading.Lock()
        self._wanted: dict[T, list[threading.Event]] = {}
        self._is_looking = False

    def wait(self, wanted: T, timeout_s: float) -> bool:
        """Sleep until ``wanted`` is there; False when the time is up first.

        Have a seat, be in no transaction, and look once yourself before: the first look is a moment away.
        """
        is_there = threading.Event()
        self._join(wanted, is_there)
        try:
            with _off_work():
                return is_there.wait(timeout_s)
        finally:
            self._leave(wanted, is_there)

    def _join(self, wanted: T, is_there: threading.Event) -> None:
        with self._gate:
            self._wanted.setdefault(wanted, []).append(is_there)
            if not self._is_looking:
                threading.Thread(target=self._look_on, name="watch", daemon=True).start()
                self._is_looking = True

    def _leave(self, wanted: T, is_there: threading.Event) -> None:
        with self._gate:
            waiting = self._wanted[wanted]
            waiting.remove(is_there)
            if not waiting:
                del self._wanted[wanted]

    def _look_on(self) -> None:
        """Look again and again for as long as anyone waits."""
        pause = threading.Event()
        while self._is_anyone_waiting():
            pause.wait(_LOOK_EVERY_S)
            try:
                self._look()
            except Exception:  # a sweep: whoever waits is answered by the clock at the latest
                logger.exception("look for those who wait failed")
                connection.close()
        connection.close()

    def _is_anyone_waiting(self) -> bool:
        with self._gate:
            self._is_looking = bool(self._wanted)
            return self._is_looking

    def _look(self) -> None:
        with self._gate:
            wanted = list(self._wanted)
        found = self._find(wanted) if wanted else ()
        with self._gate:
            for one in found:
                for is_there in self._wanted.get(one, ()):
                    is_there.set()


def _give_connection_back() -> None:
    """Close this thread's connection, which opens again by itself when it is needed next."""
    if not connection.in_atomic_block:
        connection.close()
