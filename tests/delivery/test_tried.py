"""How a destination's latest tries ended: shares, latency, and their course over time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from delivery import tried
from delivery.models import Attempt
from tests.batching.rows import NOW, a_destination, a_request

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def attempt(place, outcome="delivered", *, minutes=0, took_s=0.1, again=False) -> None:
    at = NOW + minutes * MINUTE
    next_at = at + MINUTE if again else None
    request = place.requests.first() or a_request(destination=place)
    facts = {"duration_s": took_s, "ended_at": at, "next_at": next_at, "number": 1}
    Attempt.objects.create(request=request, destination=place, outcome=outcome, **facts)


def test_only_the_latest_of_each_destination_are_looked_at_in_one_query(django_assert_num_queries):
    here, there, idle = a_destination(), a_destination(), a_destination()
    for minutes in range(5):
        attempt(here, minutes=minutes)
    attempt(there, "timeout", again=True)

    with django_assert_num_queries(1):
        found = tried.latest([here.pk, there.pk, idle.pk], most=3)

    assert [one.ended_at for one in found[here.pk]] == [NOW + n * MINUTE for n in (4, 3, 2)]
    assert [(one.is_delivered, one.is_last) for one in found[there.pk]] == [(False, False)]
    assert idle.pk not in found


def test_a_hundred_destinations_are_one_query(django_assert_num_queries):
    places = [a_destination().pk for _ in range(100)]

    with django_assert_num_queries(1):
        assert tried.latest(places, most=1) == {}


def test_figures_tell_the_share_that_arrived_and_how_long_that_took():
    place = a_destination()
    for number in range(1, 20):
        attempt(place, took_s=number / 10)
    attempt(place, "timeout", took_s=30)

    course = tried.course_of(tried.latest([place.pk], most=100)[place.pk])

    assert (course.tries, course.delivered, course.share) == (20, 19, 0.95)
    assert course.p95_s == 1.9


def test_without_tries_there_are_no_figures():
    course = tried.course_of([])

    assert (course.share, course.p95_s) == (None, None)
    assert tried.stretches_of([]) == []


def test_the_time_is_parted_and_each_part_tells_how_its_tries_ended():
    place = a_destination()
    attempt(place, "timeout", minutes=0, again=True)
    attempt(place, "http_status", minutes=12)
    attempt(place, minutes=24)

    parts = tried.stretches_of(tried.latest([place.pk], most=100)[place.pk])

    assert len(parts) == tried.STRETCHES
    told = {n: (p.delivered, p.tried_again, p.given_up) for n, p in enumerate(parts) if p.total}
    assert told == {0: (0, 1, 0), 12: (0, 0, 1), 23: (1, 0, 0)}
    assert parts[12].began_at == NOW + 12 * MINUTE


def test_tries_of_one_moment_are_one_part():
    place = a_destination()
    attempt(place)
    attempt(place)

    assert tried.stretches_of(tried.latest([place.pk], most=9)[place.pk])[0].delivered == 2
