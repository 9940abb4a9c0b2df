"""Django's name for this package."""

from __future__ import annotations

from django.apps import AppConfig


class BatchingConfig(AppConfig):
    """Registers the models of this package."""

    name = "batching"
    verbose_name = "Batching"
