"""System checks: settings that are each right but wrong together, or wrong for where they are used.

Django runs them before `migrate` and `run` and on `check`. Never connects to anything.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks


@checks.register
def broker_fits_database(**_options: Any) -> list[checks.CheckMessage]:
    """SQLite is for one host; a broker for many hosts beside it is most likely a slip."""
    is_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    if is_sqlite and not settings.CELERY_BROKER_URL.startswith("embedded:"):
        return [
            checks.Warning(
                "CELERY_BROKER_URL names a broker for several hosts, but the database is SQLite, "
                "which only processes of this host can share.",
                hint="Set DATABASE_URL to a PostgreSQL server to spread over hosts.",
                id="batcher.W001",
            )
        ]
    return []


@checks.register
def input_queue_has_server(**_options: Any) -> list[checks.CheckMessage]:
    """An input queue without a server to find it on takes nothing in."""
    if settings.RABBITMQ_INPUT_QUEUE and not settings.RABBITMQ_URL:
        return [
            checks.Error(
                "RABBITMQ_INPUT_QUEUE is set, but RABBITMQ_URL is not.", id="batcher.E001"
            ),
        ]
    return []
