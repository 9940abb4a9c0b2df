"""How several senders share what one destination takes at a time, without talking to each other.

Pure: ``turns`` keeps the shares in the destination's row, under its lock. A share has an end, so what a
dead sender held is free again by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shares = Mapping[str, tuple[int, float]]
"""Sender to (tries that it may have in flight, epoch seconds at which that ends)."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one sender was given."""

    slots: int
    """Tries that it may have in flight from now on."""
    shares: dict[str, tuple[int, float]]
    """All shares that hold now, its own among them."""


def take(
    shares: Shares, sender: str, *, limit: int, flying: int, now_s: float, until_s: float
) -> Share:
    """Give a sender its fair part of ``limit``, as far as the others have left it.

    ``flying`` is what it has in flight, and may have until it hears of its new share: that much stays
    its own whatever it is given. A sender that gets nothing is noted all the same, and the others
    leave it its part when they ask next.
    """
    others = {
        name: (slots, end)
        for name, (slots, end) in shares.items()
        if name != sender and end > now_s
    }
    free = max(0, limit - sum(slots for slots, _ in others.values()))
    fair = max(1, limit // (len(others) + 1)) if limit else 0
    slots = min(free, fair)
    return Share(slots=slots, shares={**others, sender: (max(slots, flying), until_s)})


def leave(shares: Shares, sender: str, *, now_s: float) -> dict[str, tuple[int, float]]:
    """Return the shares without the sender's own, and without those that ended."""
    return {
        name: (slots, end)
        for name, (slots, end) in shares.items()
        if name != sender and end > now_s
    }
