"""Celery's consumer without the machinery for delayed messages.

Decides that a worker on RabbitMQ does not make the 28 queues in which Celery lets messages with a countdown
wait: nothing here sends any, for what is due later stands in the database. Celery loads it by name
(`worker_consumer` in batcher/celery.py); importing it in a process that is no worker would only cost time.
"""

from __future__ import annotations

from typing import ClassVar

from celery.worker import consumer


class Consumer(consumer.Consumer):
    """A consumer of messages that are due now."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc,valid-type]  # it is a class
        """Celery's steps but one."""

        default_steps: ClassVar[list[str]] = [
            step
            for step in consumer.Consumer.Blueprint.default_steps
            if not str(step).endswith(":DelayedDelivery")
        ]
