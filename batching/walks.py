"""Carrying on walks: look before, count in windows, step while there is time, stop.

A walk is an order over many rows (`models.walks`). All work is bounded windows of row ids, so the size of the table
costs time, never a long query; a worker that dies leaves a walk where its last step ended. What a step does is
the kind's own: ``delivery.replays`` sends results again, ``admin.running`` makes the panel's moves.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from django.db import transaction
from django.db.models import Count, Max, Min, Model, QuerySet

from batching.claims import pause, running_clock
from batching.lifecycle import Actor
from batching.models.walks import Walk
from batching.steering import Refused

logger = logging.getLogger(__name__)

WINDOW: Final = 20_000
"""Row ids that one query looks at."""
SAMPLES: Final = 5
_RUN_S: Final = 10.0
_LOOK_S: Final = 4.0
_MOST_TRIES: Final = 20

Row = TypeVar("Row", bound=Model)
Kind = TypeVar("Kind", bound=Walk)


@dataclass(frozen=True, kw_only=True)
class Look(Generic[Row]):
    """What a walk would mean, if it began now."""

    matched: int
    is_all: bool
    """Off: looking took too long, and there may be more than ``matched``."""
    samples: Sequence[Row]
    """The first few of them."""
    by_state: Counter[str]
    """How many of them stand at which state."""


def bounds(rows: QuerySet[Any]) -> tuple[int, int]:
    """Return the lowest and the highest id of these rows; (1, 0) when there are none."""
    ends = rows.order_by().aggregate(low=Min("pk"), high=Max("pk"))
    return ends["low"] or 1, ends["high"] or 0


def bounds_of_all(kind: type[Model]) -> tuple[int, int]:
    """Return the lowest and the highest id of a table: two looks at its key, where both at once would read all of it."""
    ids = kind._base_manager.values_list("pk", flat=True)
    return ids.order_by("pk").first() or 1, ids.order_by("-pk").first() or 0


def look(rows: QuerySet[Row], *, first: int, top: int) -> Look[Row]:
    """Count the rows with ids from ``first`` to ``top``, window by window, for some seconds at most."""
    until, place = time.monotonic() + _LOOK_S, first - 1
    by_state, ids = Counter[str](), list[int]()
    while place < top and time.monotonic() < until:
        end = min(place + WINDOW, top)
        window = rows.filter(pk__gt=place, pk__lte=end).order_by()
        by_state.update(dict(window.values_list("state").annotate(many=Count("pk"))))
        if len(ids) < SAMPLES:
            ids += window.order_by("pk").values_list("pk", flat=True)[: SAMPLES - len(ids)]
        place = end
    samples = list(rows.filter(pk__in=ids).order_by("pk"))
    return Look(matched=by_state.total(), is_all=place >= top, samples=samples, by_state=by_state)


def stop(walk: Kind, *, by: Actor, reason: str, now: datetime) -> Kind:
    """End a walk where it is; what it did stays done. Refused when it has ended."""
    kind = type(walk)
    noun = str(kind._meta.verbose_name)
    with transaction.atomic():
        row = kind._base_manager.select_for_update().get(pk=walk.pk)
        if not row.is_running:
            raise Refused("invalid_state", f"a {noun} that is {row.state} can't be stopped")
        kind._base_manager.filter(pk=row.pk).update(state=Walk.State.STOPPED, ended_at=now)
    walk.refresh_from_db()
    logger.info("walk stopped", extra={noun: str(walk), "by": by.name, "reason": reason[:200]})
    return walk


def step_due(
    due: Callable[[datetime], QuerySet[Kind]],
    step: Callable[[Kind, datetime], int],
    *,
    now: datetime,
    hopeless: tuple[type[Exception], ...] = (),
) -> int:
    """Take steps of the walks that are due, in turns, for some seconds; return the sum of what the steps return.

    A step that goes wrong is tried again later, and given up after many tries in a row or when it is ``hopeless``.
    """
    clock, until, total = running_clock(now), time.monotonic() + _RUN_S, 0
    while time.monotonic() < until:
        at = clock()
        walk = due(at).first()
        if walk is None:
            break
        try:
            total += step(walk, at)
        except Exception as error:
            logger.exception("step of a walk failed", extra={"walk": str(walk)})
            is_over = isinstance(error, hopeless) or walk.tries + 1 >= _MOST_TRIES
            _put_off(walk, error, at, is_over=is_over)
    return total


def _put_off(walk: Walk, error: Exception, now: datetime, *, is_over: bool) -> None:
    ended = {"state": Walk.State.FAILED, "ended_at": now} if is_over else {}
    same = type(walk)._base_manager.filter(pk=walk.pk, state=Walk.State.RUNNING)
    same.update(
        tries=walk.tries + 1,
        error=f"{type(error).__name__}: {error}"[:500],
        next_step_at=now + pause(walk.tries),
        **ended,
    )


def window_of(walk: Walk, rows: QuerySet[Row]) -> tuple[QuerySet[Row], int]:
    """Return the rows of the next window behind a walk's cursor, and where it ends."""
    end = min(walk.cursor + WINDOW, walk.top_id)
    return rows.filter(pk__gt=walk.cursor, pk__lte=end).order_by(), end


def note_counted(walk: Walk, found: int, *, end: int, now: datetime) -> bool:
    """Note how many rows a window held; False when another worker counted it first.

    With the last window all are counted, and the cursor goes back to the beginning.
    """
    counted = walk.counted + found
    changes: dict[str, Any] = {"counted": counted, "cursor": end, "tries": 0, "error": ""}
    if end >= walk.top_id:
        changes |= {"matched": counted, "cursor": walk.first_id - 1, "next_step_at": now}
        if not counted:
            changes |= {"state": Walk.State.DONE, "ended_at": now}
    same = type(walk)._base_manager.filter(pk=walk.pk, state=Walk.State.RUNNING)
    return bool(same.filter(matched__isnull=True, cursor=walk.cursor).update(**changes))
