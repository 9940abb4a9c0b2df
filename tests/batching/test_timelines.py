"""Charts' figures follow from the tallies: rates, levels, percentiles, classes of errors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from batching import tallying
from batching.models import Tally
from batching.tallying import Counted, turnaround_bounds_s
from batching.timelines import SPANS, Timeline, percentiles
from tests.batching.rows import NOW

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(seconds=30)


def counted(measure: str, **by_name: int) -> None:
    put(measure, {name.replace("_to_", ">"): count for name, count in by_name.items()})


def put(measure: str, counts: dict[str, int], *, ago: int = 0) -> None:
    minute = NOW - timedelta(minutes=ago)
    rows = [
        Counted(minute=minute, measure=measure, name=name, count=count)
        for name, count in counts.items()
    ]
    tallying._add(tallying.widened(rows, NOW))


def line(span: str = "1h") -> Timeline:
    return Timeline(SPANS[span], LATER)


def test_a_span_ends_with_the_running_stretch():
    found = line("24h")

    assert found.starts[-1] <= LATER < found.ends[-1]
    assert found.ends[:-1] == found.starts[1:]
    assert found.ends[-1] - found.starts[0] == timedelta(days=1)


@pytest.mark.parametrize(("span", "place"), [("1h", -31), ("24h", -3), ("7d", -2)])
def test_what_was_accepted_stands_in_its_stretch(span, place):
    put("moved", {">pending": 5}, ago=30)

    accepted = line(span).accepted()

    assert accepted[place] == 5
    assert sum(accepted) == 5


def test_levels_say_how_many_stood_at_a_state_at_each_time():
    put("moved", {">pending": 100}, ago=200)
    put("moved", {"pending>processing": 60}, ago=20)
    put("moved", {"processing>processed": 50, "processing>failed": 10, ">pending": 7}, ago=5)

    levels = line().levels()

    assert [levels["pending"][place] for place in (0, -22, -21, -6, -1)] == [100, 100, 40, 47, 47]
    assert [levels["processing"][place] for place in (0, -21, -6)] == [0, 60, 0]
    assert levels["processed"][-1] == 50


def test_a_state_that_was_left_more_often_than_entered_is_shown_empty():
    put("moved", {"pending>processing": 5}, ago=5)

    assert line().levels()["pending"] == [0] * 60


def test_percentiles_lie_within_their_buckets():
    bounds = turnaround_bounds_s()

    found = percentiles([(3, 50), (10, 40), (20, 10)])

    assert found.p50 == pytest.approx(bounds[3], abs=0.01)
    assert found.p90 == pytest.approx(bounds[10], abs=0.01)
    assert bounds[19] < found.p99 < bounds[20]


def test_nothing_delivered_has_no_percentiles():
    found = line().turnaround()

    assert {(one.p50, one.p90, one.p99) for one in found} == {(None, None, None)}


def test_percentiles_of_a_stretch_are_those_of_its_own_deliveries():
    put("turnaround", {"00": 10}, ago=3)
    put("turnaround", {"12": 10}, ago=2)

    spans = line().turnaround()

    assert spans[-4].p99 <= 1 < 50 < spans[-3].p50


def test_errors_are_classes_the_rarest_of_which_are_one():
    codes = {f"failed:code-{number}": 10 - number for number in range(8)}
    put("ended", {**codes, "expired:a": 3, "expired:b": 4, "cancelled:x": 1, "failed:other": 50})

    errors = {name: sum(counts) for name, counts in line().errors().items()}

    codes_shown = [f"failed:code-{number}" for number in range(4)]
    assert set(errors) == {*codes_shown, "expired", "other"}
    assert list(errors)[-1] == "other"
    assert errors["expired"] == 7
    assert sum(errors.values()) == sum(codes.values()) + 3 + 4 + 1 + 50


def test_a_timeline_asks_once():
    for ago in range(50):
        put("moved", {">pending": 1}, ago=ago)
    assert Tally.objects.count() > 50

    with CaptureQueriesContext(connection) as asked:
        line().levels()

    assert len(asked) == 1
