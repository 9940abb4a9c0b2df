"""The clock's table, as it stands in the database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery import current_app
from django.core.management import call_command
from django_celery_beat.models import PeriodicTask

from batcher.schedule import OURS, PERIODIC, Periodic, WorkQueue, write_schedule

pytestmark = pytest.mark.django_db

SWEEP = Periodic(
    name="sweep", task="tests.sweep", every=timedelta(seconds=5), description="Sweeps the floor."
)
WASH = Periodic(
    name="wash",
    task="tests.wash",
    every=timedelta(minutes=1),
    queue=WorkQueue.DELIVERY,
    description="Washes up.",
)


def ours() -> dict[str, PeriodicTask]:
    return {row.name: row for row in PeriodicTask.objects.filter(name__startswith=OURS)}


def test_each_line_becomes_a_row_that_drops_stale_ticks():
    write_schedule((SWEEP, WASH))

    row = ours()[OURS + "wash"]
    assert (row.task, row.queue, row.description) == ("tests.wash", WASH.queue, "Washes up.")
    assert row.schedule.run_every == timedelta(minutes=1)
    assert row.expire_seconds == 60
    assert row.enabled


def test_writing_twice_changes_nothing():
    write_schedule((SWEEP, WASH))
    first = {name: row.pk for name, row in ours().items()}

    write_schedule((SWEEP, WASH))

    assert {name: row.pk for name, row in ours().items()} == first


def test_a_changed_period_is_taken_over_and_a_switched_off_row_stays_off():
    write_schedule((SWEEP,))
    PeriodicTask.objects.filter(name=OURS + "sweep").update(enabled=False)
    faster = Periodic(
        name="sweep", task="tests.sweep", every=timedelta(seconds=2), description="Sweeps."
    )

    write_schedule((faster,))

    row = ours()[OURS + "sweep"]
    assert row.schedule.run_every == timedelta(seconds=2)
    assert not row.enabled


def test_rows_gone_from_the_table_go_and_rows_of_others_stay():
    write_schedule((SWEEP, WASH))
    theirs = PeriodicTask.objects.create(
        name="mine", task="theirs", interval=ours()[OURS + "wash"].interval
    )

    write_schedule((WASH,))

    assert set(ours()) == {OURS + "wash"}
    assert PeriodicTask.objects.filter(pk=theirs.pk).exists()


def test_migrate_writes_the_table():
    write_schedule((SWEEP,))

    call_command("migrate", verbosity=0)

    assert set(ours()) == {OURS + line.name for line in PERIODIC}


def test_every_line_names_a_real_task_once():
    current_app.loader.import_default_modules()

    assert {line.task for line in PERIODIC} <= set(current_app.tasks)
    assert len({line.name for line in PERIODIC}) == len(PERIODIC)
