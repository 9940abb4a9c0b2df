"""Runs: one move of the panel, made in the background to everything that a list's filter matched.

The ids of the rows are written down while they are counted, a share at a time, so a run means what matched when it
was ordered, whatever becomes of the rows or the filter later.
"""

from __future__ import annotations

from functools import partial

from django.db import models

from batching.models.keys import new_key
from batching.models.walks import Walk, WalkQuerySet

new_run_key = partial(new_key, "run")


class RunQuerySet(WalkQuerySet["Run"]):
    """Questions about runs."""


class Run(Walk):
    """One order to make one move to many rows. A worker claims it by moving its next step ahead and raising ``fence``."""

    key = models.CharField(max_length=40, default=new_run_key, editable=False)
    rows_of = models.CharField(max_length=60)
    """Which rows: ``batching.batch`` or ``batching.request``."""
    move = models.CharField(max_length=40)
    """The name of the move, as the rows' admin has it."""
    answers = models.JSONField(default=dict)
    """What the move's form asked for beside the reason."""
    query = models.TextField(blank=True)
    """The list's address behind the question mark: which rows."""
    refusals = models.JSONField(default=dict)
    """Why rows were skipped → how many."""
    fence = models.PositiveIntegerField(default=0)

    objects = RunQuerySet.as_manager()

    class Meta:
        permissions = [("operate_run", "Can stop runs")]
        constraints = [models.UniqueConstraint(fields=["key"], name="run_key")]
        indexes = [
            # RunQuerySet.due: the sweep over running ones.
            models.Index(
                fields=["next_step_at"], condition=models.Q(state="running"), name="run_due"
            ),
        ]

    def __str__(self) -> str:
        return self.key


class RunShare(models.Model):
    """Some of the rows that a run means. Written once, while it counts; gone once their turn is over."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="shares", db_index=False)
    last_id = models.BigIntegerField()
    """The highest of the ids."""
    ids = models.JSONField()
    """Row ids, rising."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "last_id"], name="runshare_place")]

    def __str__(self) -> str:
        return f"rows up to {self.last_id} of run {self.run_id}"
