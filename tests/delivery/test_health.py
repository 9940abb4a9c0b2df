"""The health of a destination: kept with its tries, told in figures and in a sentence."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from delivery import due, health
from delivery.due import Sent
from delivery.models import DestinationHealth
from delivery.outcome import Code, Outcome
from tests.batching.rows import NOW, a_destination
from tests.delivery.results import a_result

pytestmark = pytest.mark.django_db

WELL = Outcome(code=Code.DELIVERED, status=200, duration_s=0.05)
DOWN = Outcome(code=Code.CONNECTION_ERROR, detail="connection refused")


@pytest.fixture
def place():
    return a_destination()


def tried(place, outcome, count=1, *, now=NOW, **fields):
    """Let ``count`` results of the place end a try like this."""
    for _ in range(count):
        a_result(place, due_at=now, **fields)
    parcels = due.load(due.claim({place.pk: count}, now=now))
    due.record([Sent(parcel=p, outcome=outcome) for p in parcels], now=now)


def of(place, now=NOW):
    place.refresh_from_db()
    return health.of(place, now=now)


def errors(caplog):
    return [r.message for r in caplog.records if r.levelno == logging.ERROR]


def test_an_unknown_place_is_well(place):
    assert of(place).sentence == ""
    assert of(place).in_flight_limit == 32


def test_the_figures_follow_the_tries(place):
    tried(place, WELL, 3)
    tried(place, DOWN, 2, now=NOW + timedelta(seconds=1))

    found = of(place)
    assert (found.recent_tries, found.recent_failures, found.failures_in_row) == (5, 2, 2)
    assert found.last_success_at == NOW
    assert found.last_failure_at == found.failing_since == NOW + timedelta(seconds=1)
    assert found.latency_s == pytest.approx(0.05, rel=0.5)


def test_an_open_circuit_is_told_with_its_end_and_its_reason(place):
    tried(place, DOWN, 12)

    assert of(place).is_open
    assert of(place).sentence == (
        "circuit open until 12:00:30 UTC after 12 failures: connection error: connection refused"
    )
    assert "one try decides" in of(place, NOW + timedelta(minutes=1)).sentence


def test_a_slowed_place_says_so(place):
    tried(place, Outcome(code=Code.HTTP_STATUS, status=429, detail="429 Too Many Requests"))

    assert of(place).sentence == (
        "slowed to 16 of 32 at a time: http status: 429 Too Many Requests"
    )


def test_five_days_of_failures_disable_the_place_and_tell_a_person(place, caplog):
    tried(place, DOWN, 25)
    assert not of(place).sentence.startswith("disabled")

    tried(place, DOWN, now=NOW + timedelta(days=5))

    place.refresh_from_db()
    assert place.disabled_at == NOW + timedelta(days=5)
    assert "26 failures and no success since 2026-11-21 12:00" in place.stop_reason
    assert "destination disabled" in errors(caplog)


def test_a_place_that_is_enabled_again_has_its_five_days_anew(place):
    tried(place, DOWN, 25)
    then = NOW + timedelta(days=5)
    tried(place, DOWN, now=then)
    type(place).objects.update(disabled_at=None, stop_reason="")

    tried(place, DOWN, now=then + timedelta(minutes=1))

    place.refresh_from_db()
    assert place.disabled_at is None


def test_results_given_up_are_told_once_an_hour(place, caplog):
    for minutes in (0, 10, 59, 61):
        tried(place, DOWN, now=NOW + timedelta(minutes=minutes), tries=9)

    assert errors(caplog) == ["results given up"] * 2


def test_each_place_has_its_own_alert(place, caplog):
    tried(place, DOWN, tries=9)
    tried(a_destination(), DOWN, tries=9)

    assert errors(caplog) == ["results given up"] * 2


def test_a_row_that_is_missing_is_made(place):
    tried(place, WELL)
    DestinationHealth.objects.all().delete()

    tried(place, WELL)

    assert DestinationHealth.objects.get().last_success_at == NOW


def test_many_are_told_in_one_query_each(place, django_assert_num_queries):
    places = [a_destination() for _ in range(5)]
    tried(places[0], DOWN, 10)

    with django_assert_num_queries(1):
        found = health.of_many(places, now=NOW)

    assert [found[p.pk].is_open for p in places] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("fields", "outcome", "state"),
    [
        ({"retry_delays_s": [0, 1]}, DOWN, "processed"),
        ({"retry_delays_s": [0]}, DOWN, "delivery_failed"),
        ({"fail_fast_on_4xx": True}, Outcome(code=Code.HTTP_STATUS, status=404), "delivery_failed"),
        ({}, Outcome(code=Code.HTTP_STATUS, status=404), "processed"),
    ],
    ids=["second try", "no second try", "fail fast", "by default on"],
)
def test_the_terms_of_a_place_decide_what_follows(fields, outcome, state):
    place = a_destination(**fields)
    tried(place, outcome)

    assert place.requests.get().state == state
