"""The sandbox's own time: it can run faster than the wall's, and it can be moved ahead.

Everything in a batch's life (stages, the 24-hour window, expiry of files, a lag in listing) is read
from this clock. What happens on the wire (a hang, Retry-After) is real time and never passes here.
While no sandbox runs, its time passes at the wall's pace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the clock showed at one moment; kept so that a restarted sandbox goes on from there."""

    sandbox: float
    """Unix seconds on the sandbox's clock."""
    wall: float
    """Unix seconds on the wall's clock at that moment."""


class Clock:
    """Unix seconds that pass ``speed`` times as fast as real ones."""

    def __init__(self, speed: float = 1.0, last: Reading | None = None) -> None:
        """Go on from ``last``, or from the wall's time when there is none."""
        if speed <= 0:
            raise ValueError("speed must be greater than 0")
        self.speed = speed
        """Change it by ``run_at`` only."""
        wall = time.time()
        self._base = wall if last is None else last.sandbox + max(0.0, wall - last.wall)
        self._started = time.monotonic()

    def now(self) -> float:
        """Return the sandbox's time, in Unix seconds."""
        return self._base + (time.monotonic() - self._started) * self.speed

    def reading(self) -> Reading:
        """Return what to keep for the next start."""
        return Reading(sandbox=self.now(), wall=time.time())

    def run_at(self, speed: float) -> None:
        """Go on from now ``speed`` times as fast as real time."""
        if speed <= 0:
            raise ValueError("speed must be greater than 0")
        self._base, self._started, self.speed = self.now(), time.monotonic(), speed

    def advance(self, seconds: float) -> None:
        """Move the clock ahead; it never goes back."""
        if seconds < 0:
            raise ValueError("the clock only moves ahead")
        self._base += seconds

    def real_seconds(self, sandbox_seconds: float) -> float:
        """Return how long ``sandbox_seconds`` take outside."""
        return sandbox_seconds / self.speed
