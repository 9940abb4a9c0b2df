"""One step of one batch: claimed, taken, and put off when it goes wrong.

A claim is a short transaction: it raises the batch's fence and moves its next try to the end of a
lease, which is renewed while the step runs. The outside is called with no transaction open, and what
came of it is recorded under the same fence. A worker that dies leaves a lease that ends by itself; one
that comes back too late finds another fence and drops what it has.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import DatabaseError, connection, models, transaction

from batching.gateway import note_trouble
from batching.lifecycle import Stale
from batching.models import Batch
from batching.providers.base import ProviderError

logger = logging.getLogger(__name__)

Step = Callable[[Batch, datetime], None]

LEASE = timedelta(minutes=1)
"""How long a step of a dead worker stays claimed."""
_LONGEST_LEASE = timedelta(hours=1)

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=15)


def each(batches: models.QuerySet[Batch], step: Step, *, now: datetime) -> int:
    """Claim the due batches one after another and take the step with each; return how many.

    A sweep may take long: each lease runs from its own claim, not from the sweep's beginning.
    """
    taken, clock = 0, running_clock(now)
    while batch := claim(batches, now=clock()):
        taken += 1
        with renewed(batch):
            guarded(step, batch, clock())
    return taken


@contextmanager
def renewed(batch: Batch) -> Iterator[None]:
    """Keep a claim while its step runs, so that a lease may be short and a step may be long."""
    done = threading.Event()
    # The step changes the row that it holds: the keeper is told how it was claimed.
    claimed = (batch.pk, batch.fence, batch.next_attempt_at, done)
    keeper = threading.Thread(target=_renew, args=claimed, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()


def _renew(pk: int, fence: int, ends: datetime, done: threading.Event) -> None:
    """Move the end of the lease ahead until the step is done, or has said itself what is next."""
    first, began = ends, time.monotonic()
    try:
        while not done.wait(LEASE.total_seconds() / 3):
            later = first + timedelta(seconds=time.monotonic() - began)
            ours = Batch.objects.filter(pk=pk, fence=fence, next_attempt_at=ends)
            try:
                if not ours.update(next_attempt_at=later):
                    return
                ends = later
            except DatabaseError as error:  # busy or gone for a moment: the lease has room for two
                logger.warning("lease not renewed", extra={"batch": pk, "error": str(error)[:200]})
                connection.close()
    finally:
        connection.close()


def running_clock(now: datetime) -> Callable[[], datetime]:
    """Return a clock that starts at ``now`` and goes on in whole seconds."""
    began = time.monotonic()
    return lambda: now + timedelta(seconds=int(time.monotonic() - began))


def claim(batches: models.QuerySet[Batch], *, now: datetime) -> Batch | None:
    """Take the first of these batches that nobody else is taking; None when there is none."""
    with transaction.atomic():
        batch = batches.select_for_update(skip_locked=True, of=("self",)).first()
        if batch is None:
            return None
        batch.fence += 1
        batch.deaths += 1  # until the step has come to an end, whichever
        batch.next_attempt_at = now + _lease(batch)
        batch.save(update_fields=["fence", "deaths", "next_attempt_at"])
    return batch


def _lease(batch: Batch) -> timedelta:
    """Return how long the claim stands if its worker dies: longer with each that died at it before."""
    doublings: int = 2 ** min(max(0, batch.deaths - 2), 10)
    return min(LEASE * doublings, _LONGEST_LEASE)


def guarded(step: Step, batch: Batch, now: datetime) -> None:
    """Take one step; what goes wrong waits on that batch, with its reason, and stops no other."""
    try:
        if batch.deaths > 1:
            note(batch, last_error=f"workers that died at this step, in a row: {batch.deaths - 1}")
        step(batch, now)
    except Stale:
        logger.info("claim lost", extra={"batch": batch.key})
    except ProviderError as error:
        note_trouble(batch.lane.account, error, now)
        postpone(batch, str(error), now, after_s=error.after_s)
    except Exception as error:
        logger.exception("step failed", extra={"batch": batch.key, "state": batch.state})
        postpone(batch, f"{type(error).__name__}: {error}", now)
    Batch.objects.filter(pk=batch.pk, fence=batch.fence, deaths__gt=0).update(deaths=0)


def postpone(batch: Batch, error: str, now: datetime, *, after_s: float | None = None) -> None:
    """Try this step again later: after a growing pause, or the longer one that was asked for."""
    Batch.objects.filter(pk=batch.pk, fence=batch.fence).update(
        tries=batch.tries + 1,
        next_attempt_at=now + pause(batch.tries, after_s),
        last_error=error[:2000],
    )
    facts = {"batch": batch.key, "state": batch.state, "error": error[:200]}
    logger.warning("will retry", extra=facts)


def pause(tries: int, after_s: float | None = None) -> timedelta:
    """Return the pause after ``tries`` failures in a row: doubling, and never under ``after_s``."""
    doublings: int = 2 ** min(tries, 20)
    growing = min(_FIRST_PAUSE * doublings, _LONGEST_PAUSE)
    return max(growing, timedelta(seconds=after_s or 0))


def hold(batch: Batch) -> None:
    """Make sure that a claim is still ours until the transaction ends. Raises Stale. Inside atomic."""
    held = Batch.objects.select_for_update().filter(pk=batch.pk, fence=batch.fence)
    if not held.filter(state=batch.state).exists():
        raise Stale(f"batch {batch.pk} was claimed by someone else")


def note(batch: Batch, **changes: object) -> None:
    """Save facts on a claimed batch without moving it. Raises Stale when the claim is lost."""
    held = Batch.objects.filter(pk=batch.pk, fence=batch.fence, state=batch.state)
    if not held.update(**changes):
        raise Stale(f"batch {batch.pk} was claimed by someone else")
    for field, value in changes.items():
        setattr(batch, field, value)
