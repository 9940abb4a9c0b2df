"""One tick of the clock: done once, whoever rings, and never twice for two clocks.

A tick from the clock is guarded by its Pulse; a doorbell that our own work rings is not, for it says
that something is due right now. Used by the tasks of batching and delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from celery import current_app
from django.utils import timezone
from kombu.exceptions import OperationalError

from batching.models import Pulse

_SPACING = timedelta(seconds=1)
"""Under the shortest period of the clock's table: of two clocks' ticks at once only one counts."""


logger = logging.getLogger(__name__)


def ring(name: str) -> None:
    """Ask for a task right now. A broker that is away costs a few seconds: the clock finds the work."""
    try:
        current_app.send_task(name, kwargs={"rung": True})
    except OperationalError as error:
        logger.warning("doorbell not heard", extra={"task": name, "error": str(error)[:200]})


def tick(name: str, work: Callable[[datetime], int], *, rung: bool) -> int:
    """Do ``work`` now and return what it returns; 0 when another clock just did."""
    now = timezone.now()
    if not rung and not Pulse.beat(name, now=now, spacing=_SPACING):
        return 0
    return work(now)
