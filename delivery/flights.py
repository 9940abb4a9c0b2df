"""Which waiting result of this process may leave now: each destination has its slots, all have the rest.

Pure bookkeeping of one dispatch run, on one thread. A destination never gets more than half of what is
still free of the whole, so however many hang, there is room left for the next one.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

Cargo = TypeVar("Cargo")


class Flights(Generic[Cargo]):
    """Queues by destination id, what is under way of each, and how many may be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[int, int] = {}
        self._flying: Counter[int] = Counter()
        self.in_air = 0
        """Under way, over all destinations."""
        self._queues: dict[int, deque[Cargo]] = {}
        self.waiting = 0
        """Over all destinations."""

    def allow(self, destination: int, slots: int) -> None:
        """Set how many of the destination's may be under way from now on."""
        self._slots[destination] = slots

    def put(self, destination: int, cargo: Cargo) -> None:
        """Let one wait for its turn."""
        self._queues.setdefault(destination, deque()).append(cargo)
        self.waiting += 1

    def start(self) -> list[tuple[int, Cargo]]:
        """Take out all that may leave now, one of each destination after another."""
        started: list[tuple[int, Cargo]] = []
        if not self.waiting:
            return started
        turn = deque(d for d in self._queues if self._has_room(d))
        while turn:
            destination = turn.popleft()
            if not self._has_room(destination):
                continue
            queue = self._queues[destination]
            started.append((destination, queue.popleft()))
            self.waiting -= 1
            self._flying[destination] += 1
            self.in_air += 1
            if queue:
                turn.append(destination)
            else:
                del self._queues[destination]
        return started

    def land(self, destination: int) -> None:
        """Note that one of the destination's has ended."""
        self._flying[destination] -= 1
        self.in_air -= 1

    def withdraw(self, destination: int) -> list[Cargo]:
        """Take out all that still waits for the destination; it is not to be sent."""
        queue = self._queues.pop(destination, deque())
        self.waiting -= len(queue)
        return list(queue)

    def flying(self, destination: int) -> int:
        """Return how many are under way to the destination."""
        return self._flying[destination]

    def slots(self, destination: int) -> int:
        """Return how many may be under way to the destination."""
        return self._slots.get(destination, 0)

    def _has_room(self, destination: int) -> bool:
        flying = self._flying[destination]
        fair = max(1, (self._most - self.in_air) // 2)
        return flying < min(self._slots.get(destination, 0), fair)
