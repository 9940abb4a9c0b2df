"""Calls outside of batches, and what they may cost: intents, and each project's spending by day."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models
from django.db.models import F

from batching.costs import NANO
from batching.models.projects import Project
from batching.models.requests import Request


class DirectCallQuerySet(models.QuerySet["DirectCall"]):
    """Questions about direct calls."""

    def open(self) -> DirectCallQuerySet:
        """Those of which nobody has heard yet."""
        return self.filter(ended_at__isnull=True)


class DirectCall(models.Model):
    """One call for one request at the provider's ordinary endpoint: written before it is made."""

    request = models.ForeignKey(Request, models.CASCADE, related_name="direct_calls")
    attempt = models.PositiveSmallIntegerField()
    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    booked_nano = models.PositiveBigIntegerField()
    """What it may cost, in nano-dollars."""
    spent_nano = models.PositiveBigIntegerField(null=True, blank=True)
    """What it did cost; None: it is not known, and what was booked stays booked."""
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    again_at = models.DateTimeField(null=True, blank=True)
    """Before that, its request is not asked directly again."""

    objects = DirectCallQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["request", "attempt"], name="directcall_attempt")
        ]
        indexes = [
            # DirectCallQuerySet.open: what is being asked, and what was lost.
            models.Index(
                fields=["started_at"],
                condition=models.Q(ended_at__isnull=True),
                name="directcall_open",
            )
        ]

    def __str__(self) -> str:
        return f"direct call {self.pk} for request {self.request_id}"

    def end(
        self, now: datetime, *, spent_nano: int | None, again_at: datetime | None = None
    ) -> bool:
        """Close it and correct what was booked; False when someone else did. Call inside atomic."""
        ours = type(self).objects.open().filter(pk=self.pk)
        if not ours.update(ended_at=now, spent_nano=spent_nano, again_at=again_at):
            return False
        if spent_nano is not None:
            DirectSpend.correct(self.project_id, spent_nano - self.booked_nano, self.started_at)
        return True


class DirectSpend(models.Model):
    """What a project has spent on direct calls on one day (UTC), open ones as booked."""

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="direct_spends", db_index=False
    )
    day = models.DateField()
    nano = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "day"], name="directspend_day")]

    def __str__(self) -> str:
        return f"{self.project_id} on {self.day:%Y-%m-%d}"

    @classmethod
    def book(cls, project: Project, nano: int, now: datetime) -> bool:
        """Book an amount if the project's cap for the day has room; one statement decides."""
        most = project.direct_cap_nano - nano
        row, _ = cls.objects.get_or_create(project=project, day=now.astimezone(UTC).date())
        return bool(cls.objects.filter(pk=row.pk, nano__lte=most).update(nano=F("nano") + nano))

    @classmethod
    def exhausted(cls, now: datetime) -> models.QuerySet[DirectSpend, int]:
        """Return the numbers of the projects that have spent their day's cap."""
        today = cls.objects.filter(day=now.astimezone(UTC).date())
        spent = today.filter(nano__gte=F("project__direct_cap") * NANO)
        return spent.values_list("project_id", flat=True)

    @classmethod
    def correct(cls, project_id: int, nano: int, at: datetime) -> None:
        """Add an amount, or take one away, on the day of ``at``."""
        day = cls.objects.filter(project_id=project_id, day=at.astimezone(UTC).date())
        day.update(nano=F("nano") + nano)
