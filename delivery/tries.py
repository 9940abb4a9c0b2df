"""What is written down of one try at sending something, whatever it was: the columns that all attempts share."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from delivery.outcome import Code


class Try(models.Model):
    """One try at sending something to one destination. Written once, never changed.

    Holds no secret, no signature and no body, but the body's digest and size; of the receiver's answer the
    first 8 kB, with what is no visible character written as an escape.
    """

    number = models.PositiveSmallIntegerField()
    """1 for the first try since it became due."""
    is_replay = models.BooleanField(default=False)
    outcome = models.CharField(max_length=30, choices=[(str(c), str(c)) for c in Code])
    status = models.PositiveIntegerField(null=True, blank=True)
    detail = models.CharField(max_length=500, blank=True)
    answer = models.TextField(blank=True)
    address = models.CharField(max_length=100, blank=True)
    error_class = models.CharField(max_length=100, null=True, blank=True)  # noqa: DJ001  # as below
    """Of the exception that ended the try, if one did."""
    body_sha256 = models.CharField("SHA-256 of the body", max_length=64, null=True, blank=True)  # noqa: DJ001
    """Hex, of the bytes that were sent. None, as above and below: it was not noted; a column that may be
    NULL comes to a table of any size without a rewrite."""
    body_size = models.IntegerField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    duration_s = models.FloatField(default=0)
    ended_at = models.DateTimeField(default=timezone.now)
    next_at = models.DateTimeField(null=True, blank=True)
    """When the next try is due; None when it was delivered or given up."""

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"
