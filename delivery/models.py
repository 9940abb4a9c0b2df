"""Attempts: every try at delivering a result, whatever came of it."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from batching.models import Destination, Request
from delivery.outcome import Code


class Attempt(models.Model):
    """One try at delivering one result to one destination. Written once, never changed.

    Holds no secret, no signature and no request body; of the receiver's answer the first 8 kB.
    """

    request = models.ForeignKey(
        Request, models.CASCADE, related_name="delivery_attempts", db_index=False
    )
    destination = models.ForeignKey(
        Destination, models.CASCADE, related_name="attempts", db_index=False
    )
    number = models.PositiveSmallIntegerField()
    """1 for the first try since the result became due."""
    is_replay = models.BooleanField(default=False)
    outcome = models.CharField(max_length=30, choices=[(str(c), str(c)) for c in Code])
    status = models.PositiveIntegerField(null=True, blank=True)
    detail = models.CharField(max_length=500, blank=True)
    answer = models.TextField(blank=True)
    address = models.CharField(max_length=100, blank=True)
    duration_s = models.FloatField(default=0)
    ended_at = models.DateTimeField(default=timezone.now)
    next_at = models.DateTimeField(null=True, blank=True)
    """When the next try is due; None when it was delivered or given up."""

    class Meta:
        indexes = [
            # The attempts of a request, newest first.
            models.Index(fields=["request", "-id"], name="attempt_request"),
            # The attempts of a destination, newest first.
            models.Index(fields=["destination", "-id"], name="attempt_destination"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"
