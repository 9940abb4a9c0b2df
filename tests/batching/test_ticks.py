"""Of two clocks that ring at once one counts; a doorbell always does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery import current_app

from batcher.schedule import PERIODIC, ROUTES, WorkQueue
from batching.models import Pulse
from batching.ticks import tick
from tests.batching.rows import NOW, in_threads

SECOND = timedelta(seconds=1)


def beat(at):
    return Pulse.beat("pack", now=at, spacing=SECOND)


@pytest.mark.django_db
def test_a_second_clock_within_the_spacing_does_not_count():
    assert [beat(NOW + n * SECOND / 2) for n in range(5)] == [True, False, True, False, True]


@pytest.mark.django_db
def test_names_are_beaten_apart():
    assert beat(NOW)
    assert Pulse.beat("send", now=NOW, spacing=SECOND)


@pytest.mark.django_db
def test_a_clock_that_was_set_back_goes_on_beating():
    beat(NOW + timedelta(hours=1))

    assert beat(NOW)
    assert not beat(NOW)


@pytest.mark.django_db
def test_a_tick_works_once_and_a_doorbell_each_time():
    done = []

    def work(now):
        done.append(now)
        return 7

    answers = [tick("pack", work, rung=rung) for rung in (False, False, True, True)]

    assert answers == [7, 0, 7, 7]
    assert len(done) == 3


@pytest.mark.django_db(transaction=True)
def test_of_eight_clocks_at_once_one_counts():
    assert sum(in_threads(8, lambda _place: beat(NOW))) == 1
    assert sum(in_threads(8, lambda _place: beat(NOW + SECOND))) == 1


def test_every_task_of_the_clock_is_real_and_on_the_queue_it_is_routed_to():
    current_app.loader.import_default_modules()

    for line in PERIODIC:
        found = (queue for prefix, queue in ROUTES if line.task.startswith(prefix))
        assert line.task in current_app.tasks
        assert next(found, WorkQueue.DEFAULT) == line.queue, line.task


def test_every_task_of_ours_is_driven_by_the_clock():
    current_app.loader.import_default_modules()
    rooms = ("batching.", "delivery.")
    tasks = {name for name in current_app.tasks if name.startswith(rooms)}

    assert tasks == {line.task for line in PERIODIC if line.task.startswith(rooms)}
