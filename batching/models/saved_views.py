"""Views of lists that people keep: a name for a list's address."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class SavedView(models.Model):
    """One person's name for what one list shows with some filters."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False
    )
    rows_of = models.CharField(max_length=60)
    """Which list: ``batching.request``."""
    name = models.CharField(max_length=60)
    query = models.TextField(blank=True)
    """The list's address behind the question mark, without the place in it."""

    class Meta:
        constraints = [
            # Also serves the views of one person's list, by name.
            models.UniqueConstraint(fields=["user", "rows_of", "name"], name="savedview_name")
        ]

    def __str__(self) -> str:
        return self.name
