"""Celery's way into delivery: whatever is due is sent, whatever is old is deleted."""

from __future__ import annotations

from datetime import datetime

from celery import shared_task

from batching import tallying
from batching.ticks import ring, tick
from delivery import dispatch, event_making, events, replays, retention
from delivery.tallying import ATTEMPTS


@shared_task
def send(*, rung: bool = False) -> None:
    """Send every result that is due."""
    if tick("send", _send, rung=rung):
        ring("batching.tasks.close")


def _send(_now: datetime) -> int:
    return dispatch.send_due()


@shared_task
def forget(*, rung: bool = False) -> None:
    """Delete attempts and refused messages whose time is over."""
    tick("forget", retention.sweep, rung=rung)


@shared_task
def tell(*, rung: bool = False) -> None:
    """Make the events of what ended, and send those that are due."""
    tick("tell", _tell, rung=rung)


def _tell(now: datetime) -> int:
    return event_making.make_due(now) + events.send_due()


@shared_task
def replay(*, rung: bool = False) -> None:
    """Make the next chunks of running replays due."""
    if tick("replay", replays.step_due, rung=rung):
        ring("delivery.tasks.send")


@shared_task
def tally_attempts(*, rung: bool = False) -> None:
    """Count attempts for the charts."""
    tick("tally_attempts", _tally_attempts, rung=rung)


def _tally_attempts(now: datetime) -> int:
    return tallying.fold(ATTEMPTS, now)
