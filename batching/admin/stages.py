"""A request's way as a row of stages: accepted, packed, uploaded, at the provider, answered, delivered, with their times.

Read from the request, its batch and both transition logs; reads nothing itself and decides nothing. A stage that
did not come yet is there too, so that one sees what is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batching.admin.history import Step
from batching.admin.shown import duration
from batching.lifecycle import BAD_ENDS, BatchState, RequestState
from batching.models import Request

DONE, NOW, AHEAD, BAD, LEFT_OUT = "done", "now", "ahead", "bad", "passed_over"
_ICONS = {
    "accepted": "inbox", "packed": "layers", "uploaded": "upload", "at provider": "cloud", "answered": "forum",
    "delivered": "local_shipping",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage."""

    name: str
    how: str = AHEAD
    """done, now, ahead, bad or passed_over: how a batch's way names them, and their look."""
    at: datetime | None = None
    after: str = ""
    """Time since the stage before it."""
    note: str = ""

    @property
    def icon(self) -> str:
        """What says ``how`` beside its colour."""
        return {DONE: "check", BAD: "error", LEFT_OUT: "remove"}.get(
            self.how, _ICONS.get(self.name, "circle")
        )

    @property
    def words(self) -> str:
        """What says ``how`` to those who see neither."""
        return {AHEAD: "ahead", BAD: "not well", LEFT_OUT: "left out"}.get(self.how, "")


def of_request(row: Request, own: Sequence[Step], of_batch: Sequence[Step]) -> list[Stage]:
    """Return the stages of a request; ``own`` and ``of_batch`` are its moves and its batch's, oldest first."""
    stages = [
        Stage(name="accepted", how=DONE, at=row.created_at),
        _packed(row),
        _uploaded(row, of_batch),
        _at_provider(row, own),
        _answered(row),
        _delivered(row),
    ]
    return _with_gaps(_with_now(row, stages))


def _packed(row: Request) -> Stage:
    if row.batch is not None:
        at = max(row.created_at, row.batch.created_at)
        return Stage(name="packed", how=DONE, at=at, note=f"into batch #{row.batch.pk}")
    return _left_out(row, "packed")


def _uploaded(row: Request, of_batch: Sequence[Step]) -> Stage:
    at = _last(of_batch, BatchState.UPLOADED)
    if row.batch is not None and at is not None:
        return Stage(name="uploaded", how=DONE, at=at)
    return _left_out(row, "uploaded")


def _left_out(row: Request, name: str) -> Stage:
    """A request that was asked directly, or ended early, went past this; another one has it ahead."""
    is_past = row.state != RequestState.PENDING and row.batch is None
    return Stage(name=name, how=LEFT_OUT if is_past else AHEAD)


def _at_provider(row: Request, own: Sequence[Step]) -> Stage:
    at = _last(own, RequestState.PROCESSING)
    again = _last(own, RequestState.PENDING)
    if at is None or (again is not None and again > at):
        return Stage(name="at provider", how=LEFT_OUT if row.state in BAD_ENDS else AHEAD)
    return Stage(
        name="at provider",
        how=DONE,
        at=at,
        note=f"attempt {row.attempt}" if row.attempt > 1 else "",
    )


def _answered(row: Request) -> Stage:
    if row.state in BAD_ENDS:
        return Stage(name=str(row.state), how=BAD, at=row.settled_at, note=row.error_code)
    is_open = row.state in (RequestState.PENDING, RequestState.PROCESSING)
    return (
        Stage(name="answered") if is_open else Stage(name="answered", how=DONE, at=row.settled_at)
    )


def _delivered(row: Request) -> Stage:
    if row.destination is None:
        return Stage(name="delivered", how=LEFT_OUT, note="its client pulls")
    if row.dead_at:
        note = f"after {row.tries} tries{', and discarded' if row.discarded_at else ''}"
        return Stage(name="given up", how=BAD, at=row.dead_at, note=note)
    if row.delivered_at and row.due_at is None:
        return Stage(name="delivered", how=DONE, at=row.delivered_at)
    return Stage(name="delivered", note=_tries(row.tries))


def _last(steps: Sequence[Step], target: str) -> datetime | None:
    return next((step.at for step in reversed(steps) if step.target == target), None)


def _with_now(row: Request, stages: list[Stage]) -> list[Stage]:
    """Mark the first stage ahead as the one under way."""
    place = next((n for n, stage in enumerate(stages) if stage.how == AHEAD), None)
    if place is not None:
        stages[place] = replace(stages[place], how=NOW)
    return stages


def _with_gaps(stages: list[Stage]) -> list[Stage]:
    before: datetime | None = None
    told = []
    for stage in stages:
        gap = stage.at - before if stage.at and before else None
        told.append(
            replace(stage, after=duration(gap))
            if gap is not None and gap.total_seconds() >= 0
            else stage
        )
        before = stage.at or before
    return told


def _tries(count: int) -> str:
    if not count:
        return ""
    return "1 try so far" if count == 1 else f"{count} tries so far"
