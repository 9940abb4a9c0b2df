"""Walks: orders that take many rows in turn, in the background, and how far each is.

What all of them share: who asked and why, the stretch of row ids, the place reached, the figures and the next
step's time. ``batching.walks`` carries them on; a kind of walk adds what is done to each row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from typing import Self

Kind = TypeVar("Kind", bound="Walk", covariant=True)


class WalkQuerySet(models.QuerySet[Kind]):
    """Questions about walks."""

    def due(self, now: datetime) -> Self:
        """Those whose next step may be taken now, longest due first."""
        running = self.filter(state=Walk.State.RUNNING, next_step_at__lte=now)
        return running.order_by("next_step_at", "pk")


class Walk(models.Model):
    """One order. Counted first, then done in chunks by rising row id."""

    class State(models.TextChoices):
        """How it stands."""

        RUNNING = "running"
        DONE = "done"
        STOPPED = "stopped"
        FAILED = "failed"

    who = models.CharField(max_length=160)
    user_id = models.BigIntegerField(null=True)
    """Of a person; None: an API key asked."""
    reason = models.CharField(max_length=300)
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)
    error = models.CharField(max_length=500, blank=True)
    """Why it failed, or why its last step has to be tried again."""
    first_id = models.BigIntegerField(default=1)
    """The lowest row id that can match."""
    top_id = models.BigIntegerField(default=0)
    """The highest row id when it began: what came later is not meant."""
    cursor = models.BigIntegerField(default=0)
    """The last row id that was looked at: counted first, then done."""
    counted = models.BigIntegerField(default=0)
    """Matching rows up to the cursor while they are counted."""
    matched = models.BigIntegerField(null=True)
    """All matching rows; None until they are counted."""
    done = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    """Matched, but not to be done when their turn came."""
    tries = models.PositiveSmallIntegerField(default=0)
    """Steps that failed in a row."""
    next_step_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @property
    def is_running(self) -> bool:
        """True while there is more to come."""
        return self.state == self.State.RUNNING
