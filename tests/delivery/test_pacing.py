"""The three brakes: window, breaker and rate, each for any history of tries."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery import pacing
from delivery.outcome import Code, Outcome
from delivery.pacing import Pace
from tests.batching.rows import NOW

WELL = Outcome(code=Code.DELIVERED, status=200, duration_s=0.05)
REFUSED = Outcome(code=Code.CONNECTION_ERROR, detail="refused")
NOT_FOUND = Outcome(code=Code.HTTP_STATUS, status=404)
SLOW = Outcome(code=Code.TIMEOUT, duration_s=15)
TOO_MANY = Outcome(code=Code.HTTP_STATUS, status=429)
OURS = Outcome(code=Code.INTERNAL_ERROR)
OUTCOMES = st.sampled_from([WELL, REFUSED, NOT_FOUND, SLOW, TOO_MANY, OURS])
ROUNDS = st.lists(st.tuples(st.lists(OUTCOMES, max_size=12), st.integers(0, 900)), max_size=30)


def ended(pace: Pace, *outcomes: Outcome, now=NOW, ceiling=32, began=None) -> Pace:
    ends = [replace(o, started_at=began or now) for o in outcomes]
    return pacing.after(pace, ends, ceiling=ceiling, now=now)


def later(**span):
    return NOW + timedelta(**span)


def broken(now=NOW) -> Pace:
    return ended(Pace(), *[REFUSED] * 10, now=now)


# The window


@pytest.mark.parametrize("sign", [SLOW, TOO_MANY, Outcome(code=Code.NACKED)])
def test_too_much_halves_the_window(sign):
    assert pacing.limit(ended(Pace(), sign, WELL, WELL), 32, NOW) == 16


@pytest.mark.parametrize("sign", [WELL, NOT_FOUND, REFUSED])
def test_other_ends_do_not_halve_it(sign):
    assert pacing.limit(ended(Pace(), sign), 32, NOW) == 32


def test_what_began_before_the_halving_does_not_halve_again():
    pace = ended(Pace(), SLOW, SLOW)

    pace = ended(pace, WELL, SLOW, now=later(seconds=5), began=NOW)

    assert pacing.limit(pace, 32, later(seconds=5)) == 16


def test_it_never_falls_under_one():
    pace = Pace()
    for second in range(1, 9):
        pace = ended(pace, *[WELL] * 9, SLOW, now=later(seconds=second))

    assert pacing.limit(pace, 32, later(seconds=9)) == 1


def test_it_grows_by_a_step_for_each_window_of_successes_while_it_is_used():
    used = Pace(window=4.0, is_window_used=True)

    assert ended(used, *[WELL] * 4).window == 5.0
    assert ended(Pace(window=4.0), *[WELL] * 4).window == 4.0


def test_it_grows_back_to_its_ceiling_and_is_then_forgotten():
    pace = Pace(window=31.5, is_window_used=True)

    assert ended(pace, *[WELL] * 31).window is None


# The breaker


def test_ten_failures_open_it_for_half_a_minute():
    pace = broken()

    assert pacing.limit(pace, 32, later(seconds=29)) == 0
    assert pace.open_until == later(seconds=30)
    assert pace.last_failure == "connection error: refused"


@pytest.mark.parametrize(
    ("well", "failed", "is_open"), [(0, 9, False), (3, 7, True), (4, 7, False), (30, 70, True)]
)
def test_it_opens_at_ten_tries_of_which_seven_in_ten_fail(well, failed, is_open):
    pace = ended(Pace(), *[WELL] * well, *[NOT_FOUND] * failed)

    assert pacing.is_open(pace, NOW) is is_open


def test_tries_of_more_than_five_minutes_ago_count_no_more():
    pace = ended(Pace(), *[REFUSED] * 9)

    assert not pacing.is_open(ended(pace, REFUSED, now=later(minutes=5)), later(minutes=5))
    assert pacing.is_open(ended(pace, REFUSED, now=later(minutes=4)), later(minutes=4))


def test_one_probe_goes_when_the_time_is_over_and_its_success_closes():
    pace, then = broken(), later(seconds=30)

    assert pacing.limit(pace, 32, then) == 1
    assert pacing.limit(ended(pace, WELL, now=then), 32, then) == 32


def test_a_failed_probe_opens_it_for_twice_as_long_and_never_above_ten_minutes():
    pace, at, spans = broken(), NOW, []
    for _ in range(7):
        at = pace.open_until
        pace = ended(pace, REFUSED, now=at)
        spans.append((pace.open_until - at).total_seconds())

    assert spans == [60, 120, 240, 480, 600, 600, 600]


def test_stragglers_that_end_while_it_is_open_change_nothing_of_it():
    pace = ended(broken(), WELL, REFUSED, now=later(seconds=9))

    assert (pace.openings, pace.open_until) == (1, later(seconds=30))


def test_faults_of_our_own_are_no_news_of_the_destination():
    assert ended(Pace(), *[OURS] * 50) == Pace()


# Giving up


def test_five_days_and_twenty_failures_without_a_success_are_enough():
    pace = ended(Pace(), *[REFUSED] * 19)

    assert not pacing.should_be_disabled(pace, later(days=6))
    pace = ended(pace, REFUSED, now=later(days=6))
    assert pacing.should_be_disabled(pace, later(days=6))
    assert not pacing.should_be_disabled(pace, later(days=4))


def test_a_single_success_begins_the_count_anew():
    pace = ended(ended(Pace(), *[REFUSED] * 30), WELL, REFUSED, now=later(days=4))

    assert (pace.failures_in_row, pace.failing_since) == (1, later(days=4))
    assert not pacing.should_be_disabled(pace, later(days=6))


# The rate


def test_the_bucket_holds_one_second_and_fills_with_time():
    pace = pacing.refill(Pace(), 5.0, NOW)
    assert pace.tokens == 5
    empty = Pace(tokens=0.0, tokens_at=NOW)

    assert pacing.refill(empty, 5.0, later(seconds=0.5)).tokens == pytest.approx(2.5)
    assert pacing.refill(empty, 5.0, later(hours=1)).tokens == 5


def test_a_rate_under_one_a_second_still_lets_one_go():
    empty = Pace(tokens=0.0, tokens_at=NOW)

    assert pacing.token_wait_s(empty, 0.1) == pytest.approx(10)
    assert pacing.refill(empty, 0.1, later(seconds=10)).tokens == pytest.approx(1)


@given(st.floats(0.01, 1000), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 99)), max_size=40))
def test_never_more_than_the_rate_and_one_burst_in_any_time(per_second, looks):
    pace, now, taken = Pace(), NOW, 0
    for wait_s, wanted in looks:
        now += timedelta(seconds=wait_s)
        pace = pacing.refill(pace, per_second, now)
        count = min(wanted, int(pace.tokens or 0))
        pace = Pace(tokens=(pace.tokens or 0) - count, tokens_at=now)
        taken += count

    most = max(1.0, per_second) + per_second * (now - NOW).total_seconds()
    assert taken <= most + 1e-3


# Whatever happens


@given(ROUNDS, st.integers(1, 500))
def test_any_history_keeps_the_limits(rounds, ceiling):
    pace, now = Pace(), NOW
    for outcomes, wait_s in rounds:
        now += timedelta(seconds=wait_s)
        pace = ended(pace, *outcomes, now=now, ceiling=ceiling)

        limit = pacing.limit(pace, ceiling, now)
        assert limit == 0 if pacing.is_open(pace, now) else 1 <= limit <= ceiling
        assert len(pace.recent) <= 11
        assert (pace.failures_in_row == 0) == (pace.failing_since is None)
        assert pace.open_until is None or pace.open_until - now <= timedelta(minutes=10)


@given(ROUNDS)
def test_after_any_history_enough_successes_heal(rounds):
    pace, now = Pace(), NOW
    for outcomes, wait_s in rounds:
        now += timedelta(seconds=wait_s)
        pace = ended(pace, *outcomes, now=now)
    for _ in range(600):
        now += timedelta(minutes=11)
        pace = ended(Pace(**{**vars(pace), "is_window_used": True}), WELL, now=now)

    assert pacing.limit(pace, 32, now) == 32
    assert pace.openings == 0
