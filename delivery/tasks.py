"""Celery's way into delivery: one task that sends whatever is due."""

from __future__ import annotations

from datetime import datetime

from celery import shared_task

from batching.ticks import ring, tick
from delivery import dispatch


@shared_task
def send(*, rung: bool = False) -> None:
    """Send every result that is due."""
    if tick("send", _send, rung=rung):
        ring("batching.tasks.close")


def _send(_now: datetime) -> int:
    return dispatch.send_due()
