"""Exports: files of requests that a person ordered from a list, written in the background."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from django.db import models

from batching.models.keys import new_key
from batching.models.walks import Walk, WalkQuerySet

if TYPE_CHECKING:
    from typing import Self

new_export_key = partial(new_key, "exp")


class ExportQuerySet(WalkQuerySet["Export"]):
    """Questions about exports."""

    def expired(self, now: datetime) -> Self:
        """Those whose file's time is over, and those that were stopped or given up."""
        is_over = models.Q(expires_at__lte=now) | models.Q(
            state__in=[Walk.State.STOPPED, Walk.State.FAILED]
        )
        return self.filter(is_over, deleted_at__isnull=True)


class Export(Walk):
    """One order to write requests into a file. A worker claims it by moving its next step ahead and raising ``fence``.

    Its rows are written down first (their ids, in a file beside), so it means what matched when it was ordered.
    """

    class Form(models.TextChoices):
        """What its lines are."""

        NDJSON = "ndjson", "NDJSON: a JSON object a line"
        CSV = "csv", "CSV: a table, for spreadsheets"

    key = models.CharField(max_length=40, default=new_export_key, editable=False)
    form = models.CharField(max_length=8, choices=Form.choices, default=Form.NDJSON)
    columns = models.JSONField(default=list)
    """Names of `exports.COLUMNS`, in their order."""
    has_payload = models.BooleanField(default=False)
    """It holds bodies, answers or metadata: downloading it takes the permission to read those."""
    query = models.TextField(blank=True)
    """The list's address behind the question mark: which requests."""
    size_bytes = models.BigIntegerField(default=0)
    """Of the file, as far as it is written for good."""
    expires_at = models.DateTimeField(null=True)
    """When its file goes."""
    deleted_at = models.DateTimeField(null=True)
    """When its file went."""
    fence = models.PositiveIntegerField(default=0)

    objects = ExportQuerySet.as_manager()

    class Meta:
        permissions = [("order_export", "Can export requests, and download and stop exports")]
        constraints = [models.UniqueConstraint(fields=["key"], name="export_key")]
        indexes = [
            # ExportQuerySet.due: the sweep over running ones.
            models.Index(
                fields=["next_step_at"], condition=models.Q(state="running"), name="export_due"
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def filename(self) -> str:
        """What a browser calls it."""
        return f"batcher-requests-{self.created_at:%Y%m%d-%H%M%S}-{self.key[-6:]}.{self.form}"

    @property
    def is_there(self) -> bool:
        """True while its file can be downloaded."""
        return self.state == self.State.DONE and self.deleted_at is None
