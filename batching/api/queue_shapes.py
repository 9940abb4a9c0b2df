"""Order and flow on the wire: what a client may ask of them, and what it is shown of batches, lanes and accounts.

The OpenAPI document is printed from these types. `queue_views` and `lane_views` read and answer them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from batching.api.destination_shapes import RULES as _RULES
from batching.api.destination_shapes import Why
from batching.figures import Figures
from batching.models import Account, Batch, Lane
from batching.order import Place
from batching.queueing import PRIORITIES

RULES: Final = {
    "": _RULES[""],
    "/reason": _RULES["/reason"],
    "/to": "must be top or bottom; or give before instead",
    "/before": "must be the id of a batch that waits in the same lane",
    "/priority": f"must be a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}; higher goes first",
}


class MoveTo(Why, frozen=True):
    """Where in its lane a batch is to go: one of the two."""

    to: Annotated[Literal["top", "bottom"] | None, Meta(description=RULES["/to"])] = None
    before: Annotated[str | None, Meta(description=RULES["/before"])] = None


class NewPriority(Why, frozen=True, kw_only=True):
    """Which priority a batch is to have."""

    priority: Annotated[
        int, Meta(ge=PRIORITIES[0], le=PRIORITIES[-1], description=RULES["/priority"])
    ]


class BatchPlaced(Struct, frozen=True):
    """A batch after something was done to its place or its pause."""

    id: str
    state: str
    lane: str
    place: Place | None
    """Null: it does not wait in its lane."""
    priority: int
    paused_at: datetime | None
    pause_reason: str
    message: str


class LaneSummary(Struct, frozen=True):
    """One lane, as lists show it."""

    id: str
    account: str
    model: str
    url: str
    state: str
    """open or paused: none of its batches is started."""
    pause_reason: str
    figures: Figures


class LanePage(Struct, frozen=True):
    """A page of lanes."""

    data: list[LaneSummary]
    next_cursor: str | None


class Holder(Struct, frozen=True):
    """A batch that takes up the queue of the lane's account and model."""

    id: str | None
    """Null: nothing of yours is in it."""
    number: int
    """What reasons call it."""
    lane: str
    state: str
    request_count: int
    token_estimate: int


class Waiter(Struct, frozen=True):
    """A batch that waits in the lane."""

    id: str | None
    """Null: nothing of yours is in it."""
    number: int
    """What reasons call it."""
    place: int
    state: str
    priority: int
    request_count: int
    token_estimate: int
    overtaken: int
    """How many went in its stead while it waited for room."""
    is_promoted: bool
    is_paused: bool
    wait_reason: str


class LaneDetail(LaneSummary, frozen=True):
    """One lane with who holds its room and who waits for it."""

    held_by: list[Holder]
    """Longest there first, at most 200."""
    line: list[Waiter]
    """Who goes first in front, at most 200."""


class AccountShown(Struct, frozen=True):
    """One account that your requests may go through."""

    name: str
    kind: str
    is_shared: bool
    """Every project may use it."""
    state: str
    """open, paused (nothing is started through it) or off (nothing is taken for it)."""
    paused_at: datetime | None
    pause_reason: str


class AccountList(Struct, frozen=True):
    """Accounts, yours first."""

    data: list[AccountShown]


def batch_placed(row: Batch, place: Place | None, message: str) -> BatchPlaced:
    """Return a batch as it is after a deed."""
    return BatchPlaced(
        id=row.key,
        state=row.state,
        lane=str(row.lane_id),
        place=place,
        priority=row.priority,
        paused_at=row.paused_at,
        pause_reason=row.pause_reason,
        message=message,
    )


def lane_summary(row: Lane, figures: Figures) -> LaneSummary:
    """Read ``account`` of the row."""
    return LaneSummary(
        id=str(row.pk),
        account=row.account.name,
        model=row.model,
        url=row.endpoint,
        state=row.state,
        pause_reason=row.pause_reason,
        figures=figures,
    )


def holder(row: Batch, *, is_theirs: bool) -> Holder:
    """Return a batch at the provider; its id only to those with a request in it."""
    return Holder(
        id=row.key if is_theirs else None,
        number=row.pk,
        lane=str(row.lane_id),
        state=row.state,
        request_count=row.request_count,
        token_estimate=row.token_estimate,
    )


def waiter(row: Batch, place: int, *, is_theirs: bool) -> Waiter:
    """Return a batch in line; its id and the person's reason only to those with a request in it."""
    return Waiter(
        id=row.key if is_theirs else None,
        number=row.pk,
        place=place,
        state=row.state,
        priority=row.priority,
        request_count=row.request_count,
        token_estimate=row.token_estimate,
        overtaken=row.overtaken,
        is_promoted=row.promoted_at is not None,
        is_paused=row.paused_at is not None,
        wait_reason=row.wait_reason if is_theirs else "",
    )


def account_shown(row: Account) -> AccountShown:
    """Return an account without its key, its address or its troubles."""
    return AccountShown(
        name=row.name,
        kind=row.kind,
        is_shared=row.project_id is None,
        state=row.state,
        paused_at=row.paused_at,
        pause_reason=row.pause_reason,
    )
