"""Answers remembered for some seconds, so that hot paths don't ask the database each time.

Decides nothing but how long: the caller says how old an answer may be. One memory per process; what it
holds is never the only copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 10_000
_memories: list[Memory[object]] = []


class Memory(Generic[T]):
    """Values by key, each for ``seconds`` after it was made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept: dict[Hashable, tuple[float, T]] = {}
        _memories.append(self)  # type: ignore[arg-type]  # only ever emptied from there

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for ``key`` lately, or make it now; a failure is not remembered."""
        now = time.monotonic()
        found = self._kept.get(key)
        if found is not None and now - found[0] < self.seconds:
            return found[1]
        value = make()
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[key] = (now, value)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()


def forget_all() -> None:
    """Empty every memory of this process; between two tests, each with a database of its own."""
    for memory in _memories:
        memory.forget()
