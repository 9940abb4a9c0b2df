"""The clock: every periodic task in one table, written to the database after each migrate.

Decides what runs how often and on which queue each kind of work waits. django-celery-beat reads the rows,
so an operator sees them in the admin and may switch one off: `enabled` is never touched here. Every task
named here is safe to run twice, late, or not at all once; a tick that waited longer than its period is
dropped, for the next one finds the same due work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import transaction

OURS = "batcher: "
"""How the names of our rows begin; rows that an operator made himself begin otherwise and are left alone."""


class WorkQueue(StrEnum):
    """Queues of the broker: a slow upload never holds up a delivery."""

    DEFAULT = "batcher.default"
    UPLOADS = "batcher.uploads"
    COLLECTION = "batcher.collection"
    DELIVERY = "batcher.delivery"


@dataclass(frozen=True, kw_only=True)
class Periodic:
    """One line of the clock's table."""

    name: str
    """What the admin shows, unique."""
    task: str
    """Dotted name of the Celery task; it takes no arguments."""
    every: timedelta
    """Time between two ticks, whole seconds."""
    queue: WorkQueue = WorkQueue.DEFAULT
    """Where the tick waits for a worker."""
    description: str
    """What would stop if this did not run."""


PERIODIC: tuple[Periodic, ...] = (
    Periodic(
        name="pack",
        task="batching.tasks.pack",
        every=timedelta(seconds=2),
        description="Puts pending requests into batches, and seals those that are full or old.",
    ),
    Periodic(
        name="watch_deadlines",
        task="batching.tasks.watch_deadlines",
        every=timedelta(seconds=5),
        description="Puts batches with near deadlines in front, and does what projects say of those that can't be met.",
    ),
    Periodic(
        name="answer_late",
        task="batching.tasks.answer_late",
        every=timedelta(seconds=5),
        queue=WorkQueue.COLLECTION,
        description="Asks providers directly for what no batch brings in time, where projects want that.",
    ),
    Periodic(
        name="upload",
        task="batching.tasks.upload",
        every=timedelta(seconds=5),
        queue=WorkQueue.UPLOADS,
        description="Uploads the files of sealed batches.",
    ),
    Periodic(
        name="submit",
        task="batching.tasks.submit",
        every=timedelta(seconds=5),
        queue=WorkQueue.UPLOADS,
        description="Creates provider batches as far as their lanes have room.",
    ),
    Periodic(
        name="adopt",
        task="batching.tasks.adopt",
        every=timedelta(seconds=15),
        queue=WorkQueue.UPLOADS,
        description="Looks for batches whose creation at the provider is in doubt.",
    ),
    Periodic(
        name="poll",
        task="batching.tasks.poll",
        every=timedelta(seconds=2),
        queue=WorkQueue.COLLECTION,
        description="Asks providers about the batches that are due for a look.",
    ),
    Periodic(
        name="collect",
        task="batching.tasks.collect",
        every=timedelta(seconds=5),
        queue=WorkQueue.COLLECTION,
        description="Fetches the files of finished batches and settles their requests.",
    ),
    Periodic(
        name="close",
        task="batching.tasks.close",
        every=timedelta(seconds=5),
        description="Closes batches with nothing left on its way.",
    ),
    Periodic(
        name="read",
        task="batching.tasks.read",
        every=timedelta(seconds=2),
        queue=WorkQueue.UPLOADS,
        description="Reads the files of clients' batches (/v1/batches) and stores their requests.",
    ),
    Periodic(
        name="watch",
        task="batching.tasks.watch",
        every=timedelta(seconds=5),
        description="Ends clients' batches whose last request has ended, and stops cancelled ones.",
    ),
    Periodic(
        name="run",
        task="batching.tasks.run",
        every=timedelta(seconds=2),
        queue=WorkQueue.UPLOADS,
        description="Goes on with runs: moves ordered for everything that a filter matched, a chunk at a time.",
    ),
    Periodic(
        name="export",
        task="batching.tasks.export",
        every=timedelta(seconds=3),
        queue=WorkQueue.UPLOADS,
        description="Goes on with exports: writes requests that people ordered into files, a chunk at a time.",
    ),
    Periodic(
        name="tidy",
        task="batching.tasks.tidy",
        every=timedelta(minutes=5),
        description="Removes clients' files and exports whose time is over.",
    ),
    Periodic(
        name="forget_answers",
        task="batching.tasks.forget_answers",
        every=timedelta(minutes=10),
        description="Drops answers that were kept a day for calls with an Idempotency-Key.",
    ),
    Periodic(
        name="analyze",
        task="batching.tasks.analyze",
        every=timedelta(seconds=15),
        description="Lets PostgreSQL count again tables that have grown much, so that its plans fit them.",
    ),
    Periodic(
        name="tally",
        task="batching.tasks.tally",
        every=timedelta(seconds=10),
        description="Counts what happened to requests, and what answers cost, for the charts.",
    ),
    Periodic(
        name="tally_attempts",
        task="delivery.tasks.tally_attempts",
        every=timedelta(seconds=10),
        description="Counts attempts at delivery and how long results took, for the charts.",
    ),
    Periodic(
        name="forget_notices",
        task="batching.tasks.forget_notices",
        every=timedelta(hours=1),
        description="Drops providers' webhooks that can't come again, and figures too old for any chart.",
    ),
    Periodic(
        name="send",
        task="delivery.tasks.send",
        every=timedelta(seconds=2),
        queue=WorkQueue.DELIVERY,
        description="Sends results that are due to their destinations.",
    ),
    Periodic(
        name="tell",
        task="delivery.tasks.tell",
        every=timedelta(seconds=5),
        queue=WorkQueue.DELIVERY,
        description="Tells destinations of batches and submissions that ended, where they ask for it.",
    ),
    Periodic(
        name="replay",
        task="delivery.tasks.replay",
        every=timedelta(seconds=2),
        queue=WorkQueue.DELIVERY,
        description="Goes on with replays: makes results due again, a chunk at a time.",
    ),
    Periodic(
        name="forget",
        task="delivery.tasks.forget",
        every=timedelta(minutes=10),
        queue=WorkQueue.DELIVERY,
        description="Deletes attempts and refused messages that are older than the settings say.",
    ),
)

ROUTES: tuple[tuple[str, WorkQueue], ...] = (
    ("batching.tasks.read", WorkQueue.UPLOADS),
    ("batching.tasks.run", WorkQueue.UPLOADS),
    ("batching.tasks.export", WorkQueue.UPLOADS),
    ("batching.tasks.upload", WorkQueue.UPLOADS),
    ("batching.tasks.submit", WorkQueue.UPLOADS),
    ("batching.tasks.adopt", WorkQueue.UPLOADS),
    ("batching.tasks.poll", WorkQueue.COLLECTION),
    ("batching.tasks.collect", WorkQueue.COLLECTION),
    ("batching.tasks.answer_late", WorkQueue.COLLECTION),
    ("delivery.tasks.tally_attempts", WorkQueue.DEFAULT),
    ("delivery.tasks.", WorkQueue.DELIVERY),
)
"""Task name prefix → queue, for tasks that are rung by hand; the first that fits holds."""


@transaction.atomic
def write_schedule(table: tuple[Periodic, ...] | None = None) -> None:
    """Make the clock's rows equal `table` (default: PERIODIC); rows of ours that are gone from it go."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

    table = PERIODIC if table is None else table
    for line in table:
        seconds = int(line.every.total_seconds())
        interval, _ = IntervalSchedule.objects.get_or_create(
            every=seconds, period=IntervalSchedule.SECONDS
        )
        PeriodicTask.objects.update_or_create(
            name=OURS + line.name,
            defaults={
                "task": line.task,
                "interval": interval,
                "crontab": None,
                "solar": None,
                "clocked": None,
                "queue": line.queue.value,
                "expire_seconds": seconds,
                "description": line.description,
            },
        )
    kept = [OURS + line.name for line in table]
    PeriodicTask.objects.filter(name__startswith=OURS).exclude(name__in=kept).delete()
    PeriodicTasks.update_changed()


def write_schedule_after_migrate(using: str, **_signal: Any) -> None:
    """Receive `post_migrate`, once for the default database."""
    if using == "default" and settings.configured:
        write_schedule()
