"""Turns at the due queue: all senders together keep a destination's window, breaker and rate."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError

from batching.models import Request
from delivery import due, health, turns
from delivery.due import LEASE, Sent
from delivery.models import DestinationHealth
from delivery.outcome import Code, Outcome
from delivery.turns import Held
from tests.batching.rows import NOW, a_destination, in_threads, states_of
from tests.delivery.results import a_result

pytestmark = pytest.mark.django_db

WELL = Outcome(code=Code.DELIVERED, status=200, duration_s=0.05)
DOWN = Outcome(code=Code.CONNECTION_ERROR, detail="refused")
SLOW = Outcome(code=Code.TIMEOUT, duration_s=15)


def take(sender="one", held=None, *, now=NOW):
    return turns.take(sender, held or {}, now=now)


def record(turn, outcome, *, now=NOW):
    sent = [Sent(parcel=p, outcome=outcome) for p in due.load(turn.claims)]
    due.record(sent, now=now)


def results_at(count, **fields):
    place = a_destination(**fields)
    for _ in range(count):
        a_result(place)
    return place


def later(**span):
    return NOW + timedelta(**span)


def test_the_first_sender_gets_the_whole_window(settings):
    settings.BATCHER_DESTINATION_IN_FLIGHT = 7
    place = results_at(3)

    turn = take()

    assert turn.slots == {place.pk: 7}
    assert len(turn.claims) == 3
    assert turn.destinations == {place.pk: place}


def test_a_destination_may_have_a_cap_of_its_own():
    place = results_at(1, max_in_flight=3)

    assert take().slots == {place.pk: 3}


def test_the_second_sender_gets_nothing_until_the_first_makes_room():
    place = results_at(40, max_in_flight=8)
    take("one")

    assert take("two").slots == {place.pk: 0}
    assert take("one", {place.pk: Held(claimed=16, flying=8)}).slots == {place.pk: 4}
    take("one", {place.pk: Held(claimed=12, flying=4)})
    assert take("two").slots == {place.pk: 4}


def test_what_a_dead_sender_had_is_shared_out_when_its_lease_ends():
    place = results_at(40, max_in_flight=8)
    take("dead")

    assert take("two", now=NOW + LEASE / 2).slots == {place.pk: 0}
    assert take("two", now=NOW + LEASE * 1.5).slots == {place.pk: 8}


def test_who_leaves_leaves_his_share():
    place = results_at(40, max_in_flight=8)
    take("one")

    turns.leave("one", [place.pk], now=NOW)

    assert take("two").slots == {place.pk: 8}


def test_no_more_is_claimed_than_is_sent_soon():
    place = results_at(40, max_in_flight=4)
    DestinationHealth.objects.create(destination=place, latency_s=15)

    turn = take()

    assert len(turn.claims) == 8
    assert take(held={place.pk: Held(claimed=8, flying=4)}).claims == []


def test_messages_for_a_broker_that_is_well_are_claimed_ahead_of_its_confirms():
    place = results_at(20, type="rabbitmq", url="", queue="results", max_in_flight=8)
    DestinationHealth.objects.create(destination=place, latency_s=0.01)

    assert len(take(held={place.pk: Held(claimed=8, flying=8)}).claims) == 20


@pytest.mark.parametrize("known", [{}, {"latency_s": 0.001, "failures_in_row": 1}])
def test_of_a_place_that_may_fail_no_more_is_claimed_than_may_fly(known):
    place = results_at(20, max_in_flight=4)
    DestinationHealth.objects.create(destination=place, **known)

    assert len(take().claims) == 4
    assert len(take(held={place.pk: Held(claimed=3, flying=3)}).claims) == 1


def test_an_open_circuit_holds_results_without_costing_them_a_try():
    place = results_at(12)
    record(take(), DOWN)
    waiting = a_result(place)

    turn = take(now=later(seconds=10))

    assert (turn.claims, turn.slots) == ([], {})
    assert Request.objects.get(pk=waiting.pk).tries == 0


def test_one_probe_goes_and_no_second_before_it_ended():
    place = results_at(12)
    record(take(), DOWN)
    for _ in range(3):
        a_result(place)
    then = later(seconds=31)

    probe = take("one", now=then)

    assert len(probe.claims) == 1
    assert take("one", {place.pk: Held(claimed=1, flying=1)}, now=then).claims == []
    assert take("two", now=then).claims == []
    record(probe, WELL, now=then)
    assert len(take("one", now=then).claims) > 1


def test_what_is_held_back_meanwhile_has_no_slots():
    place = results_at(3)
    take()
    type(place).objects.update(paused_at=NOW)

    turn = take(held={place.pk: Held(claimed=3, flying=1)})

    assert (turn.slots, turn.destinations) == ({place.pk: 0}, {})


def test_a_rate_lets_so_many_go_a_second_and_says_when_to_come_back():
    place = results_at(30, max_per_second=5)

    first = take()
    assert len(first.claims) == 5
    assert first.again_in_s == pytest.approx(0.2)
    record(first, WELL)
    assert take().claims == []
    assert len(take(now=later(seconds=0.4)).claims) > 1
    assert Request.objects.filter(destination=place, tries__gt=0).count() == 5


def test_timeouts_halve_the_window_for_everyone():
    place = results_at(6, max_in_flight=8)
    record(take(), SLOW)
    a_result(place)
    turns.leave("one", [place.pk], now=NOW)

    assert take("two").slots == {place.pk: 4}


def test_given_back_results_are_due_at_once_as_they_were():
    results_at(2)
    turn = take()
    (request, other) = Request.objects.order_by("pk")

    due.give_back(turn.claims[:1], reason="held", now=NOW)

    assert states_of(request, other) == ["processed", "delivering"]
    (again,) = take(now=NOW).claims
    assert (again.request_id, again.number) == (request.pk, 1)


def test_a_claim_that_was_lost_is_not_given_back():
    results_at(1)
    late = take().claims
    take("two", now=NOW + LEASE * 1.1)
    before = Request.objects.values().get()

    due.give_back(late, reason="held", now=NOW + LEASE * 1.1)

    assert Request.objects.values().get() == before


@pytest.mark.django_db(transaction=True)
def test_senders_that_ask_at_the_same_time_keep_to_the_window_together():
    place = results_at(60, max_in_flight=8)

    slots = in_threads(6, lambda n: take(f"sender-{n}").slots.get(place.pk, 0))

    assert sum(slots) <= 8
    assert max(slots) > 0


def test_tokens_that_nothing_was_due_for_come_back():
    place = results_at(2, max_per_second=5)

    turn = take()

    assert len(turn.claims) == 2
    assert DestinationHealth.objects.get(pk=place.pk).tokens == pytest.approx(3)


def test_a_claim_that_fails_leaves_its_share_to_others(monkeypatch):
    place = results_at(2, max_in_flight=4)

    def broken(room, *, now):
        raise DatabaseError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(due, "claim", broken)
        with pytest.raises(DatabaseError, match="locked"):
            take("one")

    assert take("two").slots == {place.pk: 4}


def test_what_is_known_of_a_window_says_nothing_of_one_that_was_halved_since():
    place = results_at(1)
    DestinationHealth.objects.create(destination=place, window=8.0, slowed_at=NOW)
    known = DestinationHealth.objects.get()
    DestinationHealth.objects.update(window=4.0, slowed_at=later(seconds=1))

    health.note_window_use(known, is_used=True)
    assert not DestinationHealth.objects.get().is_window_used

    health.note_window_use(DestinationHealth.objects.get(), is_used=True)
    assert DestinationHealth.objects.get().is_window_used
