"""Small rows that the operation itself needs: switches, and signs of life."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

_FUTURE = timedelta(minutes=1)
"""More than the clocks of two hosts differ by."""


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
