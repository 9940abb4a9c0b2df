"""Replays: orders to send many results again, and how far each is.

A replay is a filter, a pace and a place in the order of request ids; ``replays`` carries it out.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from django.db import models
from django.utils import timezone

from batching.models import Project
from batching.models.keys import new_key

new_replay_key = partial(new_key, "rpl")


class ReplayQuerySet(models.QuerySet["Replay"]):
    """Questions about replays."""

    def due(self, now: datetime) -> ReplayQuerySet:
        """Those whose next chunk may be taken now, longest due first."""
        running = self.filter(state=Replay.State.RUNNING, next_step_at__lte=now)
        return running.order_by("next_step_at", "pk")


class Replay(models.Model):
    """One order to send results again. Counted first, then done in chunks by rising request id."""

    class State(models.TextChoices):
        """How it stands."""

        RUNNING = "running"
        DONE = "done"
        STOPPED = "stopped"
        FAILED = "failed"

    key = models.CharField(max_length=40, default=new_replay_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, null=True, related_name="+")
    """None: every project's; only an operator may."""
    who = models.CharField(max_length=160)
    user_id = models.BigIntegerField(null=True)
    """Of a person; None: an API key asked."""
    reason = models.CharField(max_length=300)
    filter = models.JSONField(default=dict)
    """Which requests: the members of ``replays.Which`` that were given."""
    only_failed = models.BooleanField(default=True)
    """On: only what was given up; off: what was delivered too."""
    per_second = models.FloatField()
    """Results made due in a second, at most."""
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)
    error = models.CharField(max_length=500, blank=True)
    """Why it failed, or why its last step has to be tried again."""
    first_id = models.BigIntegerField(default=1)
    """The lowest request id that can match."""
    top_id = models.BigIntegerField(default=0)
    """The highest request id when it began: what came later is not meant."""
    cursor = models.BigIntegerField(default=0)
    """The last request id that was looked at: counted first, then sent again."""
    counted = models.BigIntegerField(default=0)
    """Matching requests up to the cursor while they are counted."""
    matched = models.BigIntegerField(null=True)
    """All matching requests; None until they are counted."""
    done = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    """Matched, but not to be sent again when their turn came."""
    tries = models.PositiveSmallIntegerField(default=0)
    """Steps that failed in a row."""
    next_step_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    objects = ReplayQuerySet.as_manager()

    class Meta:
        permissions = [("operate_replay", "Can stop replays")]
        constraints = [models.UniqueConstraint(fields=["key"], name="replay_key")]
        indexes = [
            # ReplayQuerySet.due: the sweep over running ones.
            models.Index(
                fields=["next_step_at"], condition=models.Q(state="running"), name="replay_due"
            ),
            # A project's list, newest first.
            models.Index(fields=["project", "-id"], name="replay_project"),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def is_running(self) -> bool:
        """True while there is more to come."""
        return self.state == self.State.RUNNING
