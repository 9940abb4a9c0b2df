"""A batch's way as its page draws it: seven stages, each with when it was reached and how long it took.

Read from the transition log that the page shows anyway. A stage that a batch came back to is drawn once, with how
often; looks at the provider are no moves and stand beside its stage as one time. Stages ahead are grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batching.admin import shown
from batching.lifecycle import BatchState
from batching.templatetags.badges import BAD, GOOD, QUIET, WARNING

if TYPE_CHECKING:
    from datetime import datetime

    from batching.admin.history import History
    from batching.models import Batch

_S = BatchState
_STAGES: Final[tuple[tuple[str, str, frozenset[str]], ...]] = (
    ("Filled", "layers", frozenset({_S.BUILDING})),
    ("Uploaded", "upload", frozenset({_S.UPLOADING, _S.UPLOADED})),
    ("Admitted", "hourglass_top", frozenset({_S.WAITING_FOR_CAPACITY})),
    ("At the provider", "autorenew", frozenset({_S.SUBMITTING, _S.PROCESSING, _S.CANCELLING})),
    ("Fetched", "download", frozenset({_S.COMPLETED, _S.DOWNLOADING})),
    ("Sent out", "local_shipping", frozenset({_S.READY_TO_DELIVER, _S.DELIVERING})),
)
_ENDS: Final[dict[str, tuple[str, str, str]]] = {
    _S.DELIVERED: ("Delivered", "check_circle", GOOD),
    _S.PARTIALLY_DELIVERED: ("Partly delivered", "rule", WARNING),
    _S.DELIVERY_FAILED: ("Delivery failed", "running_with_errors", BAD),
    _S.FAILED: ("Failed", "error", BAD),
    _S.EXPIRED: ("Expired", "timer_off", BAD),
    _S.CANCELLED: ("Cancelled", "cancel", QUIET),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the way."""

    label: str
    icon: str
    tone: str
    """``done``, ``now``, ``ahead`` or ``passed_over``; of an end its own: good, warning, bad, quiet."""
    at: datetime | None = None
    """When it was reached first; None: not yet, or not known."""
    took: str = ""
    times: int = 0
    """How often; 1 is not worth a word."""


@dataclass(kw_only=True)
class _Stay:
    first: datetime
    span: timedelta
    times: int


def way_of(batch: Batch, history: History, now: datetime) -> list[Stage]:
    """Return the stages of a batch, first to last."""
    stays = _stays(batch, history, now)
    reached = [place for place, _ in enumerate(_STAGES) if place in stays]
    furthest = max(reached, default=0)
    way = [_stage(place, batch, stays.get(place), furthest) for place in range(len(_STAGES))]
    label, icon, tone = _ENDS.get(batch.state, ("Delivered", "check_circle", "ahead"))
    at = batch.state_changed_at if batch.is_final else None
    return [*way, Stage(label=label, icon=icon, tone=tone, at=at)]


def _stays(batch: Batch, history: History, now: datetime) -> dict[int, _Stay]:
    """Add up the time in each stage, move by move; a log that is cut begins with what it has."""
    moves = [(step.at, step.target) for step in history.steps]
    if not history.is_cut:
        moves = [(batch.created_at, str(_S.BUILDING)), *moves]
    ends = [at for at, _ in moves[1:]] + [now]
    stays: dict[int, _Stay] = {}
    before = None
    for (at, state), end in zip(moves, ends, strict=True):
        place = _place_of(state)
        if place is not None:
            stay = stays.setdefault(place, _Stay(first=at, span=timedelta(), times=0))
            stay.span += max(timedelta(), end - at)
            stay.times += place != before
        before = place
    return stays


def _place_of(state: str) -> int | None:
    return next((n for n, (_, _, states) in enumerate(_STAGES) if state in states), None)


def _stage(place: int, batch: Batch, stay: _Stay | None, furthest: int) -> Stage:
    label, icon, states = _STAGES[place]
    if stay is None:
        is_past = place < furthest or batch.is_final
        return Stage(label=label, icon=icon, tone="passed_over" if is_past else "ahead")
    is_now = batch.state in states
    return Stage(
        label=label,
        icon=icon,
        tone="now" if is_now else "done",
        at=stay.first,
        took=shown.duration(stay.span),
        times=stay.times,
    )
