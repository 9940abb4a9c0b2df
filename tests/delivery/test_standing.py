"""How a destination stands: what waits, what was given up and why."""

from __future__ import annotations

import pytest

from delivery import standing
from delivery.standing import Cause
from tests.batching.rows import NOW, a_destination
from tests.delivery.results import a_result

pytestmark = pytest.mark.django_db


def given_up(place, outcome="", status=None):
    """A result that was given up for this cause."""
    cause = standing.stored_cause(outcome, status)
    return a_result(place, state="delivery_failed", due_at=None, dead_at=NOW, dead_cause=cause)


def test_what_was_given_up_is_told_by_how_its_last_try_ended():
    place = a_destination()
    given_up(place, "http_status", 500)
    given_up(place, "http_status", 500)
    given_up(place, "http_status", 404)
    given_up(place)
    given_up(a_destination(), "timeout")

    found = standing.of(place, now=NOW)

    assert found.given_up == 4
    assert found.causes == [
        Cause(outcome="http_status", status=500, count=2),
        Cause(outcome="", status=None, count=1),
        Cause(outcome="http_status", status=404, count=1),
    ]


def test_no_more_are_grouped_than_a_page_has_time_for(monkeypatch):
    monkeypatch.setattr(standing, "MOST_GROUPED", 2)
    place = a_destination()
    for outcome in ("timeout", "dns_error", "dns_error"):
        given_up(place, outcome)

    found = standing.of(place, now=NOW)

    assert found.given_up == sum(cause.count for cause in found.causes) == 2


def test_a_destination_that_is_well_has_no_causes(django_assert_num_queries):
    place = a_destination()

    with django_assert_num_queries(4):
        assert standing.of(place, now=NOW).causes == []
