"""When to look at a batch again: the account's own pace, else the setting's."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from batching.models import Batch


def interval(batch: Batch) -> timedelta:
    """Return the pause between two looks at this batch."""
    return timedelta(seconds=batch.lane.account.poll_seconds or settings.BATCHER_POLL_SECONDS)


def first_poll(batch: Batch, now: datetime) -> datetime:
    """Return when to look at a batch that was just accepted: most refusals show early."""
    return now + min(interval(batch), timedelta(seconds=15))
