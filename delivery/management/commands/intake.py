"""``manage.py intake``: take requests from RABBITMQ_INPUT_QUEUE until told to end.

`manage.py run` starts it beside the others when the queue is named; `manage.py run intake` becomes it.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from delivery.intake_consumer import Source, consume


class Command(BaseCommand):
    """Consume until SIGTERM or Ctrl-C."""

    help = "Take requests from the RabbitMQ queue RABBITMQ_INPUT_QUEUE."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run; leave with code 1 and one line when no queue is named."""
        if not (settings.RABBITMQ_URL and settings.RABBITMQ_INPUT_QUEUE):
            raise CommandError("set RABBITMQ_URL and RABBITMQ_INPUT_QUEUE to take requests from it")
        source = Source(
            url=settings.RABBITMQ_URL,
            queue=settings.RABBITMQ_INPUT_QUEUE,
            prefetch=settings.BATCHER_INTAKE_PREFETCH,
            is_declared_by_us=settings.BATCHER_DECLARE_INPUT_QUEUE,
        )
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: stop.set())
        consume(source, stop)
