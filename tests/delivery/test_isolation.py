"""Destinations are each on their own account: over real sockets, several processes, and a killed one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from batching.models import Request
from delivery import dispatch, health
from delivery.models import Attempt, DestinationHealth
from tests.batching.rows import a_destination
from tests.delivery.receivers import answering, hanging_up
from tests.delivery.results import listening
from tests.delivery.workers import (
    Gate,
    add_results,
    another_process,
    dispatching,
    end_leases,
    place_at,
    states,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


# One that hangs


def test_fifty_healthy_ones_are_done_while_one_hangs():
    gate = Gate()
    with listening(gate) as stuck, listening(answering("200 OK")) as well:
        hung = place_at(stuck, 40)
        healthy = [a_destination(url=well.url(f"/{n}")) for n in range(50)]
        for place in healthy:
            add_results(place, 2)
        with dispatching():
            until(lambda: states(*healthy) == {"delivered": 100}, "the healthy ones to be done")
            assert gate.inside == 32
            assert Attempt.objects.filter(destination=hung).count() == 0
            gate.open()

    assert states(hung) == {"delivered": 40}


def test_more_that_hang_than_there_is_room_for_leave_some(monkeypatch):
    monkeypatch.setattr(dispatch, "_IN_FLIGHT", 40)
    gate = Gate()
    with listening(gate) as stuck, listening(answering("200 OK")) as well:
        hung = [place_at(stuck, 32) for _ in range(1)]
        hung += [a_destination(url=stuck.url(f"/{n}")) for n in range(5)]
        for place in hung[1:]:
            add_results(place, 32)
        healthy = place_at(well, 10)
        with dispatching():
            until(lambda: states(healthy) == {"delivered": 10}, "the healthy one to be done")
            assert 0 < gate.inside < 40
            gate.open()


def test_what_becomes_due_while_one_hangs_does_not_wait_for_it():
    gate = Gate()
    with listening(gate) as stuck, listening(answering("200 OK")) as well:
        hung = place_at(stuck, 1)
        with dispatching():
            until(lambda: gate.inside == 1, "the hanging try")
            healthy = place_at(well, 5)
            assert dispatch.send_due() == 0  # the run that is under way goes on for it
            until(lambda: states(healthy) == {"delivered": 5}, "the newcomer to be done")
            assert states(hung) == {"delivering": 1}
            gate.open()


# One that refuses


def test_a_place_that_refuses_is_left_alone_and_what_waits_loses_no_try():
    with listening(hanging_up) as receiver:
        place = place_at(receiver, 60, max_in_flight=4)

        tries = dispatch.send_due()

    assert tries < 60
    assert Request.objects.filter(destination=place, tries=0).count() == 60 - tries
    assert states(place) == {"processed": 60}
    assert health.of(place, now=timezone.now()).sentence.startswith("circuit open until")
    assert dispatch.send_due() == 0


def test_a_place_that_recovers_gets_one_probe_and_then_everything():
    gate = Gate(is_open=True)
    with listening(gate) as receiver:
        place = place_at(receiver, 30)
        ago = timezone.now() - timedelta(seconds=1)
        DestinationHealth.objects.create(destination=place, openings=3, open_until=ago)
        with dispatching():
            until(lambda: len(receiver.requests) > 1, "more than the probe")

    assert states(place) == {"delivered": 30}
    assert DestinationHealth.objects.get().openings == 0


def test_results_that_wait_are_given_back_when_their_place_is_paused():
    gate = Gate()
    with listening(gate) as receiver:
        place = place_at(receiver, 6, max_in_flight=2)
        with dispatching():
            until(lambda: gate.inside == 2, "two tries")
            type(place).objects.update(paused_at=timezone.now())
            until(lambda: states(place)["processed"] == 4, "the others to be given back")
            gate.open()

    assert len(receiver.requests) == 2
    assert Request.objects.filter(tries=0, state="processed").count() == 4


def test_a_place_that_is_paused_while_memory_is_full_gets_no_more(monkeypatch):
    monkeypatch.setattr(dispatch, "_HELD_BYTES", 1)
    monkeypatch.setattr(dispatch, "_LOOK_EVERY_S", 0.1)
    gate = Gate()
    with listening(gate) as receiver:
        place = place_at(receiver, 6, max_in_flight=2)
        DestinationHealth.objects.create(destination=place, latency_s=0.01)  # claimed ahead
        with dispatching():
            until(lambda: gate.inside == 2, "two tries")
            assert states(place) == {"delivering": 6}
            type(place).objects.update(paused_at=timezone.now())
            until(lambda: states(place)["processed"] == 4, "the others to be given back")
            gate.open()

    assert len(receiver.requests) == 2


# A rate


@pytest.mark.slow
def test_a_rate_is_kept_in_one_run_and_costs_no_tries():
    with listening(answering("200 OK")) as receiver:
        place = place_at(receiver, 10, max_per_second=5)
        began = timezone.now()

        assert dispatch.send_due() == 10

    assert (timezone.now() - began).total_seconds() > 0.9  # five at once, then five a second
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}
    assert states(place) == {"delivered": 10}


# Several workers


@pytest.mark.slow
def test_two_processes_keep_to_one_window_and_send_nothing_twice(tmp_path):
    gate = Gate(is_open=True, delay_s=0.05)
    with listening(gate) as receiver:
        place = place_at(receiver, 150, max_in_flight=6)
        with another_process(tmp_path / "a"), another_process(tmp_path / "b"):
            until(lambda: states(place) == {"delivered": 150}, "everything to be delivered")

    assert gate.most <= 6
    assert len({r.headers["webhook-id"] for r in receiver.requests}) == 150
    assert len(receiver.requests) == 150


@pytest.mark.slow
def test_a_worker_killed_with_tries_under_way_holds_its_part_for_a_minute_only(tmp_path):
    gate = Gate()
    with listening(gate) as receiver:
        place = place_at(receiver, 8, max_in_flight=4)
        with another_process(tmp_path) as worker:
            until(lambda: gate.inside == 4, "four tries under way")
            worker.kill()
            worker.wait()
        gate.open()
        assert dispatch.send_due() == 0
        end_leases()

        assert dispatch.send_due() == 8

    assert states(place) == {"delivered": 8}
    assert gate.most <= 4
    assert len({r.headers["webhook-id"] for r in receiver.requests}) == 8


@pytest.mark.service
def test_a_missing_queue_opens_its_circuit(rabbitmq_url, settings):
    settings.RABBITMQ_URL = rabbitmq_url
    place = a_destination(type="rabbitmq", url="", queue="there.is.no.such.queue")
    add_results(place, 12)

    assert dispatch.send_due() == 12
    add_results(place, 1)
    assert dispatch.send_due() == 0

    assert "queue not found" in health.of(place, now=timezone.now()).sentence
