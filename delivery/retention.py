"""What is deleted when its time is over: attempts, replays, runs, exports, events, refused messages, queues that nobody reads.

The clock calls ``sweep``. Rows go oldest first, some at a time, so a table of any size holds up nobody. Ids
rise with time, so the oldest rows stand at the table's beginning and no index on a time is needed.
Requests, their bodies, answers and the audit log are never deleted here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, Model, OuterRef

from batching.models import Export, Run
from batching.models.walks import Walk
from batching.overrides import effective
from delivery.event_models import Event, EventDelivery
from delivery.models import Attempt, IntakeStatus, Rejection, Replay

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 1_000
_RUN_S: Final = 20.0
"""A sweep deletes for this long at most; the next one goes on."""


def sweep(now: datetime) -> int:
    """Delete what is older than the settings say; return how many rows."""
    until = time.monotonic() + _RUN_S
    gone = 0
    for model, field, kept in _kept():
        count = 0
        for deleted in _old_ones(model, field, now - kept):
            count += deleted
            if time.monotonic() > until:
                break
        if count:
            logger.info("old rows deleted", extra={"table": model.__name__, "rows": count})
        gone += count
    gone += _forget_events(now - _days("EVENTS"))
    gone += sum(_forget_walks(kind, now - _days("ATTEMPTS")) for kind in (Replay, Run, Export))
    silent = IntakeStatus.objects.filter(seen_at__lt=now - _days("REJECTIONS"))
    return gone + silent.delete()[0]


def _forget_events(before: datetime) -> int:
    """Delete old events with their attempts; one that is still to be sent somewhere is kept."""
    to_somewhere = EventDelivery.objects.filter(destination__deleted_at__isnull=True)
    waiting = to_somewhere.filter(event=OuterRef("pk"), due_at__isnull=False)
    old = Event.objects.filter(~Exists(waiting), created_at__lt=before).order_by("pk")
    ids = list(old.values_list("pk", flat=True)[:_AT_ONCE])
    Event.objects.filter(pk__in=ids).delete()
    return len(ids)


def _forget_walks(kind: type[Walk], before: datetime) -> int:
    """Delete old replays or runs that have ended; what they did stands in the audit log."""
    rows = kind._base_manager
    ids = list(
        rows.filter(ended_at__lt=before).order_by("pk").values_list("pk", flat=True)[:_AT_ONCE]
    )
    rows.filter(pk__in=ids).delete()
    return len(ids)


def _kept() -> Iterator[tuple[type[Model], str, timedelta]]:
    yield Attempt, "ended_at", _days("ATTEMPTS")
    yield Rejection, "received_at", _days("REJECTIONS")


def _days(what: str) -> timedelta:
    return timedelta(days=effective(f"BATCHER_KEEP_{what}_DAYS"))


def _old_ones(model: type[Model], field: str, before: datetime) -> Iterator[int]:
    """Delete the rows from before that time, a bounded number a statement; yield how many went."""
    rows = model._base_manager
    while True:
        oldest = rows.order_by("pk").values_list("pk", field)[:_AT_ONCE]
        found = list(oldest)
        old = [pk for pk, at in found if at < before]
        if old:
            rows.filter(pk__in=old).delete()
            yield len(old)
        if len(old) < len(found) or not found:
            return
