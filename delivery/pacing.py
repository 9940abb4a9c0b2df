"""How fast a destination may be sent to, judged by how its last tries ended.

Pure: values in, values out. ``health`` keeps a Pace for each destination in the database, where all
workers share it, and calls ``after`` when tries are recorded and ``limit`` and ``refill`` when results
are claimed. Nothing here reads a clock, a setting or a row.

Three brakes. The window is how many tries may be in flight: it grows by steps while it is used, and is
halved when the receiver says that it has too much (AIMD). The breaker stops all tries while most of
them fail, and lets one through from time to time. The rate, for destinations that have one, is a token bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from delivery.outcome import Code, Outcome, plain
from delivery.retry import is_overload

_WATCHED = timedelta(minutes=5)
_SLICE_S = 30
"""Tries are counted in slices of so many seconds; the oldest fall off."""
_LEAST_TRIES = 10
_FAILING_SHARE = 0.7
_FIRST_OPEN_S, _LONGEST_OPEN_S = 30.0, 600.0
_GIVE_UP_AFTER, _GIVE_UP_FAILURES = timedelta(days=5), 20
_STEPS_TO_CEILING = 32
_LATENCY_WEIGHT = 0.3
_OVERLOADED = frozenset({Code.BROKER_BLOCKED, Code.NACKED})
_OURS = frozenset({Code.INTERNAL_ERROR, Code.PAYLOAD_MISSING, Code.RABBITMQ_NOT_CONFIGURED})
"""Faults of our own: they say nothing of the destination."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What is known of a destination; a new one is trusted."""

    window: float | None = None
    """Tries in flight at most; None: as many as its ceiling allows."""
    is_window_used: bool = False
    """The last claim would have taken more."""
    slowed_at: datetime | None = None
    """When the window was halved last; what began before says nothing new."""
    recent: tuple[tuple[int, int, int], ...] = ()
    """(slice, tries, failures) of the last five minutes, oldest first; a slice is epoch seconds / 30."""
    openings: int = 0
    """How often in a row the breaker opened; 0: it is closed."""
    open_until: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_failure: str = ""
    failing_since: datetime | None = None
    """The first failure since the last success."""
    failures_in_row: int = 0
    latency_s: float | None = None
    """Moving average over all tries."""
    tokens: float | None = None
    """None: the bucket is full."""
    tokens_at: datetime | None = None


def is_open(pace: Pace, now: datetime) -> bool:
    """Tell whether nothing may be sent now because too much failed."""
    return pace.open_until is not None and now < pace.open_until


def is_probing(pace: Pace, now: datetime) -> bool:
    """Tell whether one try may go, whose end decides."""
    return pace.openings > 0 and not is_open(pace, now)


def limit(pace: Pace, ceiling: int, now: datetime) -> int:
    """Return how many tries may be in flight, over all workers; ``ceiling`` is the destination's cap."""
    if is_open(pace, now):
        return 0
    if is_probing(pace, now):
        return 1
    if pace.window is None:
        return ceiling
    return max(1, min(int(pace.window), ceiling))


def refill(pace: Pace, per_second: float, now: datetime) -> Pace:
    """Return the pace with what the bucket gained since it was looked at; it holds one second's worth."""
    most = max(1.0, per_second)
    if pace.tokens is None or pace.tokens_at is None:
        return replace(pace, tokens=most, tokens_at=now)
    gained = per_second * max(0.0, (now - pace.tokens_at).total_seconds())
    return replace(pace, tokens=min(most, pace.tokens + gained), tokens_at=now)


def token_wait_s(pace: Pace, per_second: float) -> float:
    """Return the seconds until the bucket holds one token, 0 when it does."""
    return max(0.0, 1.0 - (pace.tokens or 0.0)) / per_second


def after(pace: Pace, ends: Sequence[Outcome], *, ceiling: int, now: datetime) -> Pace:
    """Return the pace after tries that ended like this, in that order."""
    telling = [end for end in ends if end.code not in _OURS]
    if not telling:
        return pace
    pace = _with_times(pace, telling, now)
    pace = _with_window(pace, telling, ceiling, now)
    return _with_breaker(pace, telling, now)


def should_be_disabled(pace: Pace, now: datetime) -> bool:
    """Tell whether a person has to look: five days without a success, and twenty failures or more."""
    if pace.failing_since is None or pace.failures_in_row < _GIVE_UP_FAILURES:
        return False
    return now - pace.failing_since >= _GIVE_UP_AFTER


def started_anew(pace: Pace) -> Pace:
    """Return the pace of a destination that is trusted again, with the times of its last tries."""
    return Pace(
        last_success_at=pace.last_success_at,
        last_failure_at=pace.last_failure_at,
        last_failure=pace.last_failure,
        latency_s=pace.latency_s,
        tokens=pace.tokens,
        tokens_at=pace.tokens_at,
    )


def recent_tries(pace: Pace, now: datetime) -> tuple[int, int]:
    """Return how many tries ended in the last five minutes, and how many of them failed."""
    kept = _kept(pace.recent, now)
    return sum(n for _, n, _ in kept), sum(n for _, _, n in kept)


def _with_times(pace: Pace, ends: Sequence[Outcome], now: datetime) -> Pace:
    mean = sum(end.duration_s for end in ends) / len(ends)
    old = mean if pace.latency_s is None else pace.latency_s
    pace = replace(pace, latency_s=old + _LATENCY_WEIGHT * (mean - old))
    failed = [end for end in ends if not end.is_delivered]
    in_row = pace.failures_in_row + len(failed)
    if len(failed) < len(ends):
        in_row = list(reversed([end.is_delivered for end in ends])).index(True)
        pace = replace(pace, last_success_at=now, failing_since=None)
    if in_row:
        pace = replace(pace, failing_since=pace.failing_since or now)
    if failed:
        pace = replace(pace, last_failure_at=now, last_failure=_in_words(failed[-1]))
    return replace(pace, failures_in_row=in_row)


def _in_words(outcome: Outcome) -> str:
    words = outcome.code.replace("_", " ")
    return plain(f"{words}: {outcome.detail}" if outcome.detail else words)[:200]


def _with_window(pace: Pace, ends: Sequence[Outcome], ceiling: int, now: datetime) -> Pace:
    size = float(limit(replace(pace, openings=0, open_until=None), ceiling, now))
    if any(_slows(end, pace.slowed_at) for end in ends):
        return replace(pace, window=max(1.0, size / 2), slowed_at=now, is_window_used=False)
    if pace.window is None or not pace.is_window_used:
        return pace
    delivered = sum(end.is_delivered for end in ends)
    # One step for each window's worth of successes; thirty-two of them from nothing to the ceiling.
    grown = pace.window + delivered / size * max(1.0, ceiling / _STEPS_TO_CEILING)
    return replace(pace, window=None if grown >= ceiling else grown)


def _slows(end: Outcome, slowed_at: datetime | None) -> bool:
    """Tell whether a try says that there is too much; one that began before the last halving does not."""
    if slowed_at is not None and end.started_at is not None and end.started_at <= slowed_at:
        return False
    return is_overload(end) or end.code in _OVERLOADED


def _with_breaker(pace: Pace, ends: Sequence[Outcome], now: datetime) -> Pace:
    failed = sum(not end.is_delivered for end in ends)
    if is_open(pace, now):
        return pace  # they began before it opened
    if is_probing(pace, now):
        if failed < len(ends):
            return replace(pace, openings=0, open_until=None, recent=())
        return _opened(pace, now)
    pace = replace(pace, recent=_counted(pace.recent, len(ends), failed, now))
    seen, failures = recent_tries(pace, now)
    if failed and seen >= _LEAST_TRIES and failures >= _FAILING_SHARE * seen:
        return _opened(pace, now)
    return pace


def _opened(pace: Pace, now: datetime) -> Pace:
    open_s = min(_FIRST_OPEN_S * 2 ** min(pace.openings, 10), _LONGEST_OPEN_S)
    until = now + timedelta(seconds=open_s)
    return replace(pace, openings=pace.openings + 1, open_until=until, recent=())


def _kept(recent: Sequence[tuple[int, int, int]], now: datetime) -> list[tuple[int, int, int]]:
    oldest = int((now - _WATCHED).timestamp()) // _SLICE_S
    return [one for one in recent if one[0] > oldest]


def _counted(
    recent: Sequence[tuple[int, int, int]], tries: int, failed: int, now: datetime
) -> tuple[tuple[int, int, int], ...]:
    kept, here = _kept(recent, now), int(now.timestamp()) // _SLICE_S
    if kept and kept[-1][0] == here:
        _, earlier_tries, earlier_failed = kept.pop()
        tries, failed = tries + earlier_tries, failed + earlier_failed
    return (*kept, (here, tries, failed))
