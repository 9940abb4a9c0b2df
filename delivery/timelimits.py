"""One time limit after another in one task, with one timer for all of them.

``asyncio.timeout`` sets a timer and takes it back for each thing that is limited, which costs a post more than its
signature. Here the timer is left alone when a thing ended in time: ringing early, it is set again for the one
that is under way then. Used by ``posting``.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from types import TracebackType


class TimeLimits:
    """Made inside the task that it interrupts; ``close`` it when the task goes on without."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit interrupts a task, and there is none")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None
        """By the loop's clock; None: nothing is under way."""
        self._is_over = False
        self._asked_to_stop = 0

    def within(self, seconds: float) -> TimeLimits:
        """Return what interrupts the things done inside ``with`` when they take longer, and raises TimeoutError then."""
        self._until = until = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > until:
            self.close()
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._ring)
        return self

    def __enter__(self) -> None:
        self._asked_to_stop = self._task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        is_over, self._until, self._is_over = self._is_over, None, False
        # Whoever else wants the task to stop comes first.
        if is_over and self._task.uncancel() <= self._asked_to_stop and kind is CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._until is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._ring)
            return
        self._is_over = True
        self._task.cancel()
