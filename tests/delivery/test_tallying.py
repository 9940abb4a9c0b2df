"""Attempts are tallied by outcome, and first deliveries by the time since intake."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import tallying
from batching.models import Tally
from batching.tallying import turnaround_bounds_s
from delivery.models import Attempt
from delivery.tallying import ATTEMPTS
from tests.batching.rows import NOW, a_destination, a_request

pytestmark = pytest.mark.django_db


def tried(outcome="delivered", *, after_s: float = 10, **fields) -> Attempt:
    request = a_request(created_at=NOW - timedelta(seconds=after_s))
    place = a_destination()
    return Attempt.objects.create(
        request=request, destination=place, number=1, outcome=outcome, ended_at=NOW, **fields
    )


def tallied(measure: str) -> dict[str, int]:
    tallying.fold(ATTEMPTS, NOW)
    return dict(
        Tally.objects.filter(width_s=60, measure=measure, began_at=NOW).values_list("name", "count")
    )


def test_attempts_are_counted_by_how_they_ended():
    for _ in range(3):
        tried(status=200)
    tried("http_status", status=503)
    tried("http_status", status=500)
    tried("timeout")

    assert tallied("tried") == {
        "delivered": 3, "http_status:503": 1, "http_status:500": 1, "timeout": 1,
    }  # fmt: skip


def test_a_turnaround_falls_into_the_bucket_that_holds_it():
    spans = (0.5, 1, 1.01, 70, 86_400, 90 * 86_400)
    for span in spans:
        tried(after_s=span)
    bounds = turnaround_bounds_s()

    expected = {
        f"{next((n for n, bound in enumerate(bounds) if span <= bound + 1e-4), len(bounds)):02}"
        for span in spans
    }

    found = tallied("turnaround")
    assert set(found) == expected
    assert sum(found.values()) == len(spans)


def test_only_first_deliveries_have_a_turnaround():
    tried(is_replay=True)
    tried("timeout")

    assert tallied("turnaround") == {}


def test_attempts_of_a_minute_are_bounded_by_row_ids():
    rows = [tried(), tried()]
    tallied("tried")

    row = Tally.objects.get(width_s=900, name="delivered")
    assert (row.first_id, row.last_id) == (rows[0].pk, rows[1].pk)
