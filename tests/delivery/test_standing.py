"""How a destination stands: what waits, what was given up and why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from delivery import standing
from delivery.models import Attempt
from delivery.standing import Cause
from tests.batching.rows import NOW, a_destination
from tests.delivery.results import a_result

pytestmark = pytest.mark.django_db


def given_up(place, *ends):
    """Give a result up after tries with these outcomes and statuses."""
    row = a_result(place, state="delivery_failed", due_at=None, dead_at=NOW)
    for number, (outcome, status) in enumerate(ends, start=1):
        facts = {"number": number, "outcome": outcome, "status": status}
        Attempt.objects.create(request=row, destination=place, **facts)


def test_what_was_given_up_is_told_by_how_its_last_try_ended():
    place = a_destination()
    given_up(place, ("timeout", None), ("http_status", 500))
    given_up(place, ("http_status", 500))
    given_up(place, ("http_status", 404))
    given_up(place)
    given_up(a_destination(), ("timeout", None))

    found = standing.of(place, now=NOW)

    assert found.given_up == 4
    assert found.causes == [
        Cause(outcome="http_status", status=500, count=2),
        Cause(outcome="", status=None, count=1),
        Cause(outcome="http_status", status=404, count=1),
    ]


def test_of_very_many_the_latest_are_told(monkeypatch):
    monkeypatch.setattr(standing, "MOST_COUNTED", 2)
    place = a_destination()
    for outcome in ("timeout", "dns_error", "dns_error"):
        given_up(place, (outcome, None))
    oldest = place.requests.order_by("pk").first()
    type(oldest).objects.filter(pk=oldest.pk).update(dead_at=NOW - timedelta(days=1))

    found = standing.of(place, now=NOW)

    assert found.given_up == 2
    assert found.causes == [Cause(outcome="dns_error", status=None, count=2)]


def test_a_destination_that_is_well_has_no_causes(django_assert_num_queries):
    place = a_destination()

    with django_assert_num_queries(4):
        assert standing.of(place, now=NOW).causes == ()
