"""Who did what: written once, kept as it is. The database itself refuses to change or delete a line.

The triggers are made by migration 0006; a later migration that makes SQLite build this table anew has to
make them again (a test looks for them). No foreign keys: what is named here may be gone.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """One thing that someone did, or looked at, from outside of the machine."""

    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=160)
    """``user anna``, ``key bm_live_xxxxxxxx``, ``command apikey``."""
    user_id = models.BigIntegerField(null=True)
    ip = models.GenericIPAddressField(null=True)
    """Who the connection came from: behind a proxy, the proxy."""
    action = models.CharField(max_length=60)
    """Noun and verb, as in ``apikey.revoke``."""
    object_type = models.CharField(max_length=60, blank=True)
    object_key = models.CharField(max_length=200, blank=True)
    """Its public key, or its number when it has none."""
    object_name = models.CharField(max_length=200, blank=True)
    before = models.JSONField(null=True)
    """Members that changed, as they were; a secret is ``***``."""
    after = models.JSONField(null=True)
    reason = models.CharField(max_length=300, blank=True)
    call_id = models.CharField(max_length=64, blank=True)
    """The ``X-Request-Id`` of the call that caused it."""

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        indexes = [
            # The admin's filters, newest first.
            models.Index(fields=["action", "-id"], name="audit_action"),
            models.Index(fields=["actor", "-id"], name="audit_actor"),
            models.Index(fields=["object_type", "object_key", "-id"], name="audit_object"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name or self.object_key} by {self.actor}"
