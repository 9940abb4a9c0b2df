"""What follows from a try, as a table; the bounds hold for any seed."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime, timedelta

import pytest

from delivery.outcome import Code, Outcome
from delivery.retry import (
    DEFAULT_DELAYS_S,
    Next,
    Schedule,
    is_client_error,
    is_overload,
    verdict,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = 3600


class Steady(random.Random):
    """No jitter: the middle of the range."""

    def uniform(self, a, b):
        return (a + b) / 2


def status(number, **more):
    return Outcome(code=Code.HTTP_STATUS, status=number, **more)


def wait_s(outcome, attempt=1, rng=None, **more):
    answer = verdict(outcome, attempt, now=NOW, rng=rng or Steady(), **more)
    assert answer.next is Next.RETRY
    return (answer.retry_at - NOW).total_seconds()


def test_delivered_is_the_end():
    answer = verdict(Outcome(code=Code.DELIVERED, status=204), 3, now=NOW)

    assert answer.next is Next.DELIVERED
    assert answer.retry_at is None


def test_the_schedule_is_ten_tries():
    delays = [wait_s(status(500), attempt) for attempt in range(1, 10)]

    assert delays == list(DEFAULT_DELAYS_S[1:])
    last = verdict(status(500), 10, now=NOW)
    assert last.next is Next.DEAD
    assert last.reason == "10 tries, the last: http_status"


def test_the_schedule_spans_three_days():
    assert sum(DEFAULT_DELAYS_S) == timedelta(hours=75, minutes=35, seconds=5).total_seconds()


def test_gone_is_dead_and_disables_the_destination():
    answer = verdict(Outcome(code=Code.GONE, status=410), 1, now=NOW)

    assert answer.next is Next.DEAD
    assert answer.disable_destination


@pytest.mark.parametrize(
    "code",
    [
        Code.BLOCKED_ADDRESS,
        Code.INVALID_DESTINATION,
        Code.RABBITMQ_NOT_CONFIGURED,
        Code.PAYLOAD_MISSING,
    ],
)
def test_what_only_a_change_of_configuration_helps_is_dead_at_once(code):
    answer = verdict(Outcome(code=code), 1, now=NOW)

    assert answer.next is Next.DEAD
    assert answer.reason
    assert not answer.disable_destination


@pytest.mark.parametrize(
    "code",
    sorted(
        set(Code)
        - {
            Code.DELIVERED,
            Code.GONE,
            Code.BLOCKED_ADDRESS,
            Code.INVALID_DESTINATION,
            Code.RABBITMQ_NOT_CONFIGURED,
            Code.PAYLOAD_MISSING,
        }
    ),
)
def test_every_other_failure_is_tried_again_and_ends_dead(code):
    outcome = Outcome(code=code)

    assert verdict(outcome, 1, now=NOW).next is Next.RETRY
    assert verdict(outcome, 10, now=NOW).next is Next.DEAD


@pytest.mark.parametrize("number", [400, 401, 403, 404, 405, 413, 422])
def test_client_errors_are_tried_on_unless_told_to_fail_fast(number):
    fast = Schedule(fail_fast_on_4xx=True)

    assert verdict(status(number), 1, now=NOW).next is Next.RETRY
    assert verdict(status(number), 1, now=NOW, schedule=fast).next is Next.DEAD
    assert is_client_error(status(number))


@pytest.mark.parametrize("number", [408, 409, 425, 429, 500, 503])
def test_failing_fast_spares_answers_that_ask_for_patience(number):
    fast = Schedule(fail_fast_on_4xx=True)

    assert verdict(status(number), 1, now=NOW, schedule=fast).next is Next.RETRY
    assert not is_client_error(status(number))


@pytest.mark.parametrize(
    "outcome",
    [Outcome(code=Code.TIMEOUT), status(429), status(502), status(503), status(504)],
    ids=["timeout", "429", "502", "503", "504"],
)
def test_an_overloaded_receiver_is_left_alone_for_a_minute(outcome):
    assert is_overload(outcome)
    assert wait_s(outcome, 1) == 60
    assert wait_s(outcome, 2) == 300


def test_an_ordinary_error_is_no_overload():
    assert not is_overload(status(500))
    assert wait_s(status(500), 1) == 5


@pytest.mark.parametrize(
    ("attempt", "asked_s", "expected_s"),
    [
        pytest.param(1, 0, 5, id="less than the schedule: the schedule"),
        pytest.param(1, -5, 5, id="negative: the schedule"),
        pytest.param(1, 120, 120, id="more than the schedule: as asked"),
        pytest.param(1, 9 * HOUR, HOUR, id="much more: an hour"),
        pytest.param(5, 9 * HOUR, 9 * HOUR, id="within twice the delay: as asked"),
        pytest.param(4, 30 * HOUR, 4 * HOUR, id="beyond twice the delay: twice the delay"),
        pytest.param(9, 90 * HOUR, 24 * HOUR, id="never more than a day"),
        pytest.param(1, float("inf"), HOUR, id="infinite: an hour"),
        pytest.param(1, float("nan"), 5, id="no number: the schedule"),
    ],
)
def test_retry_after_is_honoured_within_bounds(attempt, asked_s, expected_s):
    assert wait_s(status(500, retry_after_s=asked_s), attempt) == expected_s


def test_jitter_stays_within_a_fifth_and_is_even():
    rng = random.Random(7)  # noqa: S311  # repeatable on purpose
    waits = [wait_s(status(500), 3, rng=rng) for _ in range(5_000)]

    assert all(0.8 * 1800 <= wait <= 1.2 * 1800 for wait in waits)
    assert statistics.fmean(waits) == pytest.approx(1800, rel=0.02)
    assert max(waits) - min(waits) > 0.39 * 1800


def test_no_verdict_lies_in_the_past_or_beyond_a_day_when_the_receiver_asks():
    rng = random.Random(11)  # noqa: S311  # repeatable on purpose
    for _ in range(5_000):
        asked_s = rng.uniform(-10, 10**7)
        attempt = rng.randint(1, 9)
        wait = wait_s(status(rng.choice([429, 500]), retry_after_s=asked_s), attempt, rng=rng)
        assert min(0.8 * DEFAULT_DELAYS_S[attempt], 24 * HOUR) <= wait <= 24 * HOUR


def test_a_destination_may_have_its_own_schedule():
    schedule = Schedule(delays_s=(0, 10))

    assert wait_s(status(500), 1, schedule=schedule) == 10
    assert verdict(status(500), 2, now=NOW, schedule=schedule).next is Next.DEAD


@pytest.mark.parametrize("delays_s", [(), (0, -1), (0, float("inf")), (float("nan"),)])
def test_a_schedule_that_makes_no_sense_is_refused(delays_s):
    with pytest.raises(ValueError, match="delay"):
        Schedule(delays_s=delays_s)


def test_tries_are_counted_from_one():
    with pytest.raises(ValueError, match="from 1"):
        verdict(status(500), 0, now=NOW)
