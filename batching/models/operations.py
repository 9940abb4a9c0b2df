"""Small rows that the operation itself needs: switches, and signs of life."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

_FUTURE = timedelta(minutes=1)
"""More than the clocks of two hosts differ by."""
SILENT_AFTER = timedelta(seconds=90)
"""A process gives a sign every fifteen seconds."""
_REMEMBERED = timedelta(days=1)


class Flag(models.Model):
    """A switch that outlives restarts and holds for every process, such as maintenance mode."""

    MAINTENANCE = "maintenance"

    name = models.CharField(max_length=50)
    is_on = models.BooleanField(default=False)
    reason = models.CharField(max_length=300, blank=True)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name"], name="flag_name")]

    def __str__(self) -> str:
        return f"{self.name}: {'on' if self.is_on else 'off'}"

    @classmethod
    def is_raised(cls, name: str) -> bool:
        """Tell whether the switch of this name is on; one that was never set is off."""
        return cls.objects.filter(name=name, is_on=True).exists()


class Override(models.Model):
    """What an admin says in place of a setting; it comes before the environment's word until it is taken back."""

    name = models.CharField(max_length=100)
    """As in the environment."""
    value = models.CharField(max_length=1_000)
    """As it would stand in the environment."""
    reason = models.CharField(max_length=300)
    changed_by = models.CharField(max_length=150)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ("change",)
        constraints = [models.UniqueConstraint(fields=["name"], name="override_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        """What the audit log calls it."""
        return self.name


class Pulse(models.Model):
    """When a periodic task last began: the guard against two clocks, and the clock's sign of life."""

    name = models.CharField(max_length=100)
    began_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name"], name="pulse_name")]

    def __str__(self) -> str:
        return f"{self.name} at {self.began_at:%H:%M:%S}"

    @classmethod
    def beat(cls, name: str, *, now: datetime, spacing: timedelta) -> bool:
        """Note that ``name`` begins now; False when it began so lately that another clock rang.

        One conditional update decides, so of two clocks only one gets True. A beat from the future
        is from before the host's clock was set back, and counts for nothing.
        """
        old = models.Q(began_at__lte=now - spacing) | models.Q(began_at__gt=now + _FUTURE)
        if cls.objects.filter(old, name=name).update(began_at=now):
            return True
        _, created = cls.objects.get_or_create(name=name, defaults={"began_at": now})
        return created


class BeatQuerySet(models.QuerySet["Beat"]):
    """Questions about processes by their signs of life."""

    def silent(self, now: datetime) -> BeatQuerySet:
        """Those that gave no sign for longer than any pause of a living one."""
        return self.filter(seen_at__lt=now - SILENT_AFTER)

    def lost(self, now: datetime) -> BeatQuerySet:
        """Those that ended without a word and were not followed by another of their kind on their host."""
        same = Beat.objects.filter(kind=models.OuterRef("kind"), host=models.OuterRef("host"))
        followed = same.filter(started_at__gt=models.OuterRef("seen_at") - SILENT_AFTER)
        return self.silent(now).exclude(models.Exists(followed.exclude(pk=models.OuterRef("pk"))))

    def prune(self, now: datetime) -> int:
        """Forget those that were followed by others, or have been silent for a day; return how many."""
        lost = self.lost(now).filter(seen_at__gte=now - _REMEMBERED).values("pk")
        return self.silent(now).exclude(pk__in=list(lost.values_list("pk", flat=True))).delete()[0]


class Beat(models.Model):
    """One of our processes, by its own signs of life; a row goes when its process ends in peace."""

    class Kind(models.TextChoices):
        """What it does."""

        WEB = "web"
        WORKER = "worker"
        CLOCK = "clock"
        INTAKE = "intake"

    kind = models.CharField(max_length=16, choices=Kind.choices)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=60, blank=True)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    progress_at = models.DateTimeField(null=True)
    """When it last finished something."""
    progress = models.CharField(max_length=100, blank=True)
    """What that was."""
    memory_bytes = models.BigIntegerField(null=True)
    """Resident; None where the system doesn't say."""

    objects = BeatQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "host", "pid"], name="beat_process"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pid} on {self.host}"
