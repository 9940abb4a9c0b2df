"""Who holds a lane's room: the bar, when some of it may be free again, and what the provider refused last.

Lengths are shares of the bar in per cent, so that a page draws them without a line of script. Every forecast is a
guess, from how long the lane's last batches took; it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.contrib.contenttypes.models import ContentType
from django_fsm_log.models import StateLog

from batching import turnaround
from batching.admin import shown
from batching.capacity import factor_of, holders
from batching.figures import Tokens
from batching.models import Batch, Capacity, Lane

HELD_SHOWN: Final = 100
_TONES: Final = 6
_LABELLED_PERCENT: Final = 7.0
"""A shorter piece has no room for its number; it is told on hover and in the table."""
_LOOKED_AT: Final = 100
_REFUSALS_SHOWN: Final = 5
_REFUSED: Final = ("back_off", "not_accepted")


@dataclass(frozen=True, kw_only=True)
class Held:
    """One batch that holds some of the room, as a piece of the bar."""

    batch: Batch
    url: str
    tokens: int
    start: str
    """Where its piece begins, such as ``12.5%``."""
    length: str
    tone: int
    """Which of the bar's colours; neighbours differ."""
    is_labelled: bool
    free_at: datetime | None
    """When it may be back; None: no batch of its lane has told yet, or it is late."""
    is_late: bool


@dataclass(frozen=True, kw_only=True)
class Room:
    """The bar of a lane's account and model."""

    pieces: Sequence[Held]
    limit_at: str
    """Where the limit that holds stands, in per cent."""
    configured_at: str
    free: int
    """Tokens that nobody holds; 0 when more is held than the limit allows."""
    more: int
    """Batches that hold some of it and are not shown."""
    next_free: Held | None
    """Which is back first, as far as one can guess."""


def room_of(lane: Lane, tokens: Tokens, now: datetime) -> Room:
    """Return who holds the room of a lane's account and model, the oldest first. Four queries."""
    rows = holders(lane).select_related("lane").defer("provider_object", "last_error")
    held = list(rows.order_by("create_started_at", "pk")[: HELD_SHOWN + 1])
    more = rows.count() - HELD_SHOWN if len(held) > HELD_SHOWN else 0
    learned = Capacity.objects.filter(account=lane.account_id, model=lane.model).first()
    factor = factor_of(learned or Capacity())
    sizes = [math.ceil(batch.token_estimate * factor) for batch in held[:HELD_SHOWN]]
    scale = max(sum(sizes), tokens.limit, tokens.configured, 1)
    usual = turnaround.expected_of({batch.lane_id for batch in held})
    pieces, place = [], 0
    for number, (batch, size) in enumerate(zip(held, sizes, strict=False)):
        began, expected = batch.create_started_at, usual.get(batch.lane_id)
        back = began + expected.p50 if began and expected else None
        pieces.append(
            Held(
                batch=batch,
                url=shown.page_of(batch),
                tokens=size,
                start=_percent(place, scale),
                length=_percent(size, scale),
                tone=number % _TONES,
                is_labelled=100 * size / scale >= _LABELLED_PERCENT,
                free_at=back if back and back > now else None,
                is_late=bool(back and back <= now),
            )
        )
        place += size
    due = [piece for piece in pieces if piece.free_at]
    return Room(
        pieces=pieces,
        limit_at=_percent(tokens.limit, scale),
        configured_at=_percent(tokens.configured, scale),
        free=max(0, tokens.limit - tokens.used),
        more=more,
        next_free=min(due, key=lambda piece: piece.free_at or now, default=None),
    )


def _percent(part: int, scale: int) -> str:
    return f"{100 * part / scale:.2f}%"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One time that the provider had no room."""

    at: datetime
    batch: int
    url: str
    said: str


def refusals_of(lane: Lane) -> list[Refusal]:
    """Return when the provider refused one of the lane's latest batches for want of room, the newest first."""
    latest = Batch.objects.filter(lane=lane).order_by("-pk").values_list("pk", flat=True)
    rows = StateLog.objects.filter(
        content_type=ContentType.objects.get_for_model(Batch),
        object_id__in=list(latest[:_LOOKED_AT]),
        transition__in=_REFUSED,
    ).order_by("-pk")[:_REFUSALS_SHOWN]
    return [
        Refusal(
            at=row.timestamp,
            batch=int(row.object_id),
            url=shown.page_at("batching.batch", row.object_id),
            said=shown.cut(row.description or "", 300),
        )
        for row in rows
    ]
