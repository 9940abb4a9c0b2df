"""Celery's way into delivery: one task that sends whatever is due."""

from __future__ import annotations

from datetime import datetime

from celery import shared_task

from batching.tasks import close
from batching.ticks import tick
from delivery import dispatch


@shared_task
def send(*, rung: bool = False) -> None:
    """Send every result that is due."""
    if tick("send", _send, rung=rung):
        close.delay(rung=True)


def _send(_now: datetime) -> int:
    return dispatch.send_due()
