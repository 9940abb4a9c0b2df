"""Files of clients: what they uploaded, whole or in parts, and what they download.

Rows only. The bytes of an uploaded file are on disk under its key (`clientfiles` decides where); those of an
output file are nowhere: they are the answers themselves, written out when somebody asks.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone

from batching.models.keys import new_file_key, new_part_key, new_upload_key
from batching.models.projects import Project


class ClientFileQuerySet(models.QuerySet["ClientFile"]):
    """Questions about files."""

    def there(self, now: datetime) -> ClientFileQuerySet:
        """Neither deleted nor past their expiry."""
        alive = models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=now)
        return self.filter(alive, deleted_at__isnull=True)

    def of_client(self, project: Project, now: datetime) -> ClientFileQuerySet:
        """Those that are there and that a project knows of: uploaded, or output."""
        return self.there(now).filter(project=project).exclude(purpose=ClientFile.SPOOLED)


class ClientFile(models.Model):
    """A file of a project: uploaded, or the output of one of its batches. Never changed."""

    class Side(models.TextChoices):
        """Which end of a client's batch it is; empty for an uploaded file."""

        OUTPUT = "output", "answers"
        ERRORS = "errors", "bad ends"

    SPOOLED = "spooled"
    """The purpose of a file that no client uploaded: what a call brought, kept until it is read."""

    key = models.CharField(max_length=40, default=new_file_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="files", db_index=False)
    purpose = models.CharField(max_length=40)
    filename = models.CharField(max_length=512)
    size_bytes = models.PositiveBigIntegerField(null=True)
    """None: its batch still runs, and the file grows."""
    sha256 = models.CharField(max_length=64, blank=True)
    submission = models.ForeignKey(
        "batching.Submission", models.CASCADE, null=True, related_name="files", db_index=False
    )
    """The client's batch whose output it is."""
    side = models.CharField(max_length=8, choices=Side.choices, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ClientFileQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key"], name="file_key"),
            models.UniqueConstraint(
                fields=["submission", "side"],
                condition=models.Q(submission__isnull=False),
                name="file_of_submission",
            ),
        ]
        indexes = [
            # Lists of a project.
            models.Index(fields=["project", "-id"], name="file_project"),
            # The sweep that removes what has expired.
            models.Index(
                fields=["expires_at"],
                condition=models.Q(expires_at__isnull=False, deleted_at__isnull=True),
                name="file_expiring",
            ),
        ]

    def __str__(self) -> str:
        return self.filename[:80]


class FileUpload(models.Model):
    """A file that comes in parts; becomes a ClientFile when it is completed."""

    key = models.CharField(max_length=40, default=new_upload_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="uploads", db_index=False)
    purpose = models.CharField(max_length=40)
    filename = models.CharField(max_length=512)
    mime_type = models.CharField(max_length=200)
    size_bytes = models.PositiveBigIntegerField()
    """Of the whole file, as announced."""
    expires_after_s = models.PositiveIntegerField(null=True)
    """Asked for the file that it becomes."""
    file = models.OneToOneField(ClientFile, models.CASCADE, null=True, related_name="upload")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    cancelled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="upload_key")]
        indexes = [models.Index(fields=["project", "-id"], name="upload_project")]

    def __str__(self) -> str:
        return self.key


class UploadPart(models.Model):
    """One part of an upload; its bytes are on disk under its key until the upload ends."""

    key = models.CharField(max_length=40, default=new_part_key, editable=False)
    upload = models.ForeignKey(FileUpload, models.CASCADE, related_name="parts")
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="part_key")]

    def __str__(self) -> str:
        return self.key
