"""Figures counted once and kept: per minute, quarter of an hour, hour and day; what was spent each day.

``tallying`` writes them, charts and tiles read them. They refer to nothing by foreign key: a figure stays
true when what it counted is deleted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import models

ALWAYS = 0
"""The width of a tally that counts everything there ever was."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEPT: dict[int, timedelta] = {
    60: timedelta(hours=26),
    900: timedelta(days=8),
    3_600: timedelta(days=35),
    86_400: timedelta(days=5 * 365),
}
"""Width in seconds → how long tallies of it are kept."""


class Tally(models.Model):
    """How often something happened within one stretch of time."""

    width_s = models.PositiveIntegerField()
    """One of KEPT, or ALWAYS."""
    began_at = models.DateTimeField()
    """A multiple of the width since 1970, UTC."""
    measure = models.CharField(max_length=16)
    """What is counted; ``tallying`` lists them."""
    name = models.CharField(max_length=60)
    """Which of its kind: an arrow between states, an error's code, an outcome."""
    count = models.BigIntegerField()
    first_id = models.BigIntegerField(default=0)
    """The lowest row id that was counted here, and the highest: they bound a search. 0: not noted."""
    last_id = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            # Every chart: one width, one stretch of time. Pruning: the same.
            models.UniqueConstraint(
                fields=["width_s", "began_at", "measure", "name"], name="tally_of"
            )
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.measure} {self.name} at {self.began_at:%Y-%m-%d %H:%M}"


class Spend(models.Model):
    """What a project's answers from one lane used and cost on one day (UTC)."""

    day = models.DateField()
    project_id = models.BigIntegerField()
    """No foreign keys: what was paid stays paid when a project or a lane is deleted."""
    lane_id = models.BigIntegerField()
    is_batch = models.BooleanField()
    """False: asked directly, at the ordinary price."""
    answers = models.BigIntegerField(default=0)
    unpriced = models.BigIntegerField(default=0)
    """Answers among them whose price nobody knows."""
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    """Nano-dollars, of those whose price is known. Likewise below."""
    ordinary_nano = models.BigIntegerField(default=0)
    """What the same answers would have cost one by one."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "project_id", "lane_id", "is_batch"], name="spend_of"
            )
        ]

    def __str__(self) -> str:
        return f"spent on {self.day} by project {self.project_id} in lane {self.lane_id}"


class Bookmark(models.Model):
    """How far a table has been read into tallies.

    On PostgreSQL ids are handed out before they are committed: ``seen_id`` was the newest id at a look, and
    ``writers`` those that wrote at that moment. Once they are done, everything up to it is there to be read.
    """

    source = models.CharField(max_length=32)
    last_id = models.BigIntegerField(default=0)
    """Everything up to this row is counted, nothing after it."""
    counted_at = models.DateTimeField(null=True)
    """When everything that had been committed was counted last."""
    seen_id = models.BigIntegerField(default=0)
    writers = models.JSONField(default=list)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source"], name="bookmark_source")]

    def __str__(self) -> str:
        return f"{self.source} up to {self.last_id}"
