"""Replays: orders to send many results again, and how far each is.

A replay is a filter, a pace and a place in the order of request ids; ``replays`` carries it out.
"""

from __future__ import annotations

from functools import partial

from django.db import models

from batching.models import Project
from batching.models.keys import new_key
from batching.models.walks import Walk, WalkQuerySet

new_replay_key = partial(new_key, "rpl")


class ReplayQuerySet(WalkQuerySet["Replay"]):
    """Questions about replays."""


class Replay(Walk):
    """One order to send results again. Counted first, then done in chunks by rising request id."""

    key = models.CharField(max_length=40, default=new_replay_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, null=True, related_name="+")
    """None: every project's; only an operator may."""
    filter = models.JSONField(default=dict)
    """Which requests: the members of ``replays.Which`` that were given."""
    only_failed = models.BooleanField(default=True)
    """On: only what was given up; off: what was delivered too."""
    per_second = models.FloatField()
    """Results made due in a second, at most."""

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
