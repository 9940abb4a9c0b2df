"""A sender's turn at the due queue: which destinations it may send to, how much, and its claims.

Several workers take turns at the same time. What a destination takes at once is shared out under the
lock of its health row, so all of them together keep its window, its breaker and its rate. The claim
itself follows when the lock is given back: tries are recorded meanwhile. A sender
claims about as much as it can send in a second. Called by ``dispatch``; talks to nobody outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from django.db import DatabaseError, transaction

from batching.models import Destination
from delivery import due, health, pacing, shares
from delivery.due import LEASE, Claim
from delivery.models import DestinationHealth
from delivery.outgoing import ceiling_of

_AT_ONCE, _MOST = 4_000, 8_000
"""Results that a sender holds of one destination, and in all."""
_LEAST_PART = 4
"""Of what it may hold of a destination, it claims no less than this part at a time: a claim costs by itself."""
_AHEAD_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a sender has of one destination."""

    claimed: int = 0
    flying: int = 0
    """Tries under way, or allowed to be by its last turn."""


@dataclass(kw_only=True)
class Turn:
    """What a sender may do until its next turn."""

    claims: list[Claim] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    """Destination to the tries that may be under way; 0: send nothing that was not sent yet."""
    shared: set[int] = field(default_factory=set)
    """Destinations of which the sender has a share, or waits for one."""
    destinations: dict[int, Destination] = field(default_factory=dict)
    again_in_s: float | None = None
    """When a destination with a rate may be sent to again; None: nothing waits for that."""


def take(sender: str, held: Mapping[int, Held], *, now: datetime, may_claim: bool = True) -> Turn:
    """Share out every destination that has something due, or that the sender holds something of."""
    ready = {d.pk: d for d in due.ready_destinations(now)} if may_claim else {}
    ids = {*ready, *held}
    if not ids:
        return Turn()
    with transaction.atomic():
        rows = health.lock(ids, skip_locked=True)
        open_ones = Destination.objects.open().in_bulk(list(rows))
        taking = _Taking(sender, now, len(ready))
        for pk, row in rows.items():
            taking.add(row, open_ones.get(pk), held.get(pk, Held()), is_due=pk in ready)
        health.save_claimed(taking.changed)
    # What was given is written down, so others take and record meanwhile: a claim takes longer than all of that.
    if taking.room:
        try:
            taking.settle(due.claim(taking.room, now=now))
        except BaseException:
            with suppress(DatabaseError):  # else the first error is what there is to say
                leave(sender, list(taking.turn.shared), now=now)
            raise
    return taking.turn


def leave(sender: str, destination_ids: Sequence[int], *, now: datetime) -> None:
    """Give back the sender's shares: it has ended."""
    with transaction.atomic():
        rows = [r for r in health.lock(destination_ids).values() if sender in r.senders]
        for row in rows:
            row.senders = shares.leave(row.senders, sender, now_s=now.timestamp())
        health.save_claimed(rows)


class _Taking:
    """One turn while it is worked out."""

    def __init__(self, sender: str, now: datetime, due_count: int) -> None:
        self.turn = Turn()
        self.room: dict[int, int] = {}
        self._changed: dict[int, DestinationHealth] = {}
        self._sender, self._now = sender, now
        self._at_once = max(1, min(_AT_ONCE, _MOST // max(1, due_count)))
        self._rows: dict[int, DestinationHealth] = {}
        self._held: dict[int, Held] = {}

    @property
    def changed(self) -> list[DestinationHealth]:
        """The rows to be saved."""
        return list(self._changed.values())

    def add(
        self, row: DestinationHealth, place: Destination | None, held: Held, *, is_due: bool
    ) -> None:
        """Work out the share and the room of one destination; ``place`` is None when it is held."""
        pace = health.pace_of(row)
        limit = pacing.limit(pace, ceiling_of(place), self._now) if place else 0
        slots = self._share(row, limit, held, is_asking=is_due or held.claimed > 0)
        self.turn.slots[row.pk] = slots
        if place is None:
            return
        self.turn.destinations[row.pk] = place
        if not is_due or not slots:
            return
        self._rows[row.pk], self._held[row.pk] = row, held
        room = self._room(row, pace, place, slots, held)
        if room > 0:
            self.room[row.pk] = room

    def _share(self, row: DestinationHealth, limit: int, held: Held, *, is_asking: bool) -> int:
        now_s, lease_s = self._now.timestamp(), LEASE.total_seconds()
        if not is_asking:
            if self._sender in row.senders:
                row.senders = shares.leave(row.senders, self._sender, now_s=now_s)
                self._changed[row.pk] = row
            return 0
        self.turn.shared.add(row.pk)
        share = shares.take(
            row.senders,
            self._sender,
            limit=limit,
            flying=held.flying,
            now_s=now_s,
            until_s=now_s + lease_s,
        )
        mine = row.senders.get(self._sender, (None, 0.0))
        if mine[0] != share.shares[self._sender][0] or mine[1] < now_s + lease_s / 2:
            row.senders = share.shares
            self._changed[row.pk] = row
        return share.slots

    def _room(
        self,
        row: DestinationHealth,
        pace: pacing.Pace,
        place: Destination,
        slots: int,
        held: Held,
    ) -> int:
        """Return how many results may be claimed: no more than is sent soon."""
        if place.max_per_second:
            pace = pacing.refill(pace, place.max_per_second, self._now)
            room = min(int(pace.tokens or 0), slots - held.claimed)
            row.tokens, row.tokens_at = (pace.tokens or 0) - max(0, room), pace.tokens_at
            self._changed[row.pk] = row
            self._come_back(row, place.max_per_second)
            return room
        if pace.latency_s is None or pace.failures_in_row:
            return slots - held.claimed  # it may fail: nothing is claimed that could wait elsewhere
        soon = max(2 * slots, int(slots * _AHEAD_S / max(pace.latency_s, 0.001)))
        most = min(self._at_once, soon)
        room = most - held.claimed
        return room if room >= most // _LEAST_PART else 0

    def settle(self, claims: Sequence[Claim]) -> None:
        """Keep what was claimed: give back tokens that nothing was due for, note whose window was used up."""
        self.turn.claims = list(claims)
        claimed = Counter(c.destination_id for c in claims)
        for pk, room in self.room.items():
            row, place = self._rows[pk], self.turn.destinations[pk]
            if place.max_per_second and room > claimed[pk]:
                health.give_tokens_back(pk, room - claimed[pk])
            is_used = self._held[pk].claimed + claimed[pk] >= self.turn.slots[pk]
            if row.window is not None and claimed[pk] and row.is_window_used != is_used:
                health.note_window_use(row, is_used=is_used)

    def _come_back(self, row: DestinationHealth, per_second: float) -> None:
        wait_s = pacing.token_wait_s(health.pace_of(row), per_second)
        others = self.turn.again_in_s
        self.turn.again_in_s = wait_s if others is None else min(wait_s, others)
