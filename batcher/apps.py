"""The wiring as a Django app, so that its commands, checks and the clock's table are found."""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BatcherConfig(AppConfig):
    """Has no models; writes the clock's table once the tables that it needs are there."""

    name = "batcher"
    verbose_name = "Batcher"

    def ready(self) -> None:
        """Connect the clock's table to `migrate`, and register our checks and the Celery app."""
        from django.apps import apps
        from django.conf import settings

        from batcher import beats, celery, checks, schedule  # noqa: F401  # imported for their effect

        clock = apps.get_app_config("django_celery_beat")
        post_migrate.connect(
            schedule.write_schedule_after_migrate, sender=clock, dispatch_uid="batcher.schedule"
        )
        # A command of delivery, which does not know the wiring.
        is_intake = sys.argv[1:2] == ["intake"]
        if is_intake and settings.RABBITMQ_URL and settings.RABBITMQ_INPUT_QUEUE:
            beats.start("intake")
