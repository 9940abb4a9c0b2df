"""What providers tell us unasked: kept so that one told twice is heard once."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from batching.models.accounts import Account

KEPT_FOR = timedelta(days=4)
"""Longer than OpenAI tries to deliver one: 72 hours (its webhook guide, 2026)."""
PRUNED_AT_ONCE = 10_000


class NoticeQuerySet(models.QuerySet["Notice"]):
    """Questions about notices."""

    def prune(self, now: datetime) -> int:
        """Drop those that can't come again, PRUNED_AT_ONCE at most; return how many."""
        old = self.filter(came_at__lt=now - KEPT_FOR).order_by("came_at")
        ids = list(old.values_list("pk", flat=True)[:PRUNED_AT_ONCE])
        return self.filter(pk__in=ids).delete()[0] if ids else 0


class Notice(models.Model):
    """A signed message of a provider, by the id under which it may come again."""

    account = models.ForeignKey(Account, models.CASCADE, related_name="+", db_index=False)
    message_id = models.CharField(max_length=200)
    """Its ``webhook-id``."""
    type = models.CharField(max_length=60)
    came_at = models.DateTimeField(default=timezone.now)

    objects = NoticeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "message_id"], name="notice_once")
        ]
        indexes = [models.Index(fields=["came_at"], name="notice_came")]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"
