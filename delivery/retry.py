"""What follows from a try: delivered, again at a time, or dead, and why.

Pure: ``dispatch`` passes the Outcome, the number of the try and the time, and writes the Verdict in the
transaction that logs the attempt. Nothing here reads a clock, a setting or a row.
"""

from __future__ import annotations

import enum
import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from delivery.outcome import Code, Outcome

DEFAULT_DELAYS_S = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
"""The retry table of Standard Webhooks: ten tries over three days."""

_JITTER = (0.8, 1.2)
_OVERLOAD_WAIT_S = 60.0
_RETRY_AFTER_SPAN_S = 3600.0
_RETRY_AFTER_CAP_S = 86400.0
_OVERLOAD_STATUSES = frozenset({429, 502, 503, 504})
_PASSING_CLIENT_ERRORS = frozenset({408, 409, 425, 429})
"""4xx answers that say "not now" rather than "not this"."""

_PERMANENT = {
    Code.BLOCKED_ADDRESS: "the address may not be reached",
    Code.INVALID_DESTINATION: "the destination is not valid",
    Code.RABBITMQ_NOT_CONFIGURED: "RabbitMQ is not configured",
    Code.PAYLOAD_MISSING: "there is nothing to deliver",
}
"""Only a change of configuration helps; a redelivery after it starts anew."""


class Jitter(Protocol):
    """The part of ``random`` that a verdict needs; tests pass a seeded ``random.Random``."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between the two."""


class Next(enum.StrEnum):
    """What happens to the result now."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When to try, and how often; a destination may have its own."""

    delays_s: tuple[float, ...] = DEFAULT_DELAYS_S
    """The wait before each try, the first included; as many tries as delays."""
    fail_fast_on_4xx: bool = False
    """Off: a client error is tried on, for receivers deploy fixes. On: it is dead at once."""

    def __post_init__(self) -> None:
        if not self.delays_s:
            raise ValueError("a schedule needs at least one delay")
        if not all(math.isfinite(delay) and delay >= 0 for delay in self.delays_s):
            raise ValueError("delays are seconds, 0 or more")


DEFAULT_SCHEDULE = Schedule()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What ``dispatch`` writes."""

    next: Next
    retry_at: datetime | None = None
    """Set exactly when next is RETRY."""
    reason: str = ""
    """One line for the operator, empty when delivered."""
    disable_destination: bool = False
    """The receiver asked that nothing more be sent (410)."""


def verdict(
    outcome: Outcome,
    attempt: int,
    *,
    now: datetime,
    schedule: Schedule = DEFAULT_SCHEDULE,
    rng: Jitter = random,
) -> Verdict:
    """Decide what follows from the outcome of try number ``attempt`` (the first is 1)."""
    if attempt < 1:
        raise ValueError("tries are counted from 1")
    if outcome.is_delivered:
        return Verdict(next=Next.DELIVERED)
    if outcome.code is Code.GONE:
        reason = "the receiver answered 410 Gone; its destination is disabled"
        return Verdict(next=Next.DEAD, reason=reason, disable_destination=True)
    if outcome.code in _PERMANENT:
        return Verdict(next=Next.DEAD, reason=_PERMANENT[outcome.code])
    if schedule.fail_fast_on_4xx and is_client_error(outcome):
        return Verdict(next=Next.DEAD, reason=f"the receiver answered {outcome.status}")
    if attempt >= len(schedule.delays_s):
        return Verdict(next=Next.DEAD, reason=f"{attempt} tries, the last: {outcome.code}")
    wait_s = _wait_s(outcome, schedule.delays_s[attempt], rng)
    at = now + timedelta(seconds=wait_s)
    return Verdict(next=Next.RETRY, retry_at=at, reason=f"{outcome.code}: try {attempt + 1} is due")


def is_overload(outcome: Outcome) -> bool:
    """Whether the receiver has more than it can take: send it less at a time."""
    return outcome.code is Code.TIMEOUT or outcome.status in _OVERLOAD_STATUSES


def is_client_error(outcome: Outcome) -> bool:
    """Whether the receiver refuses this very message, rather than asking for patience."""
    status = outcome.status
    if outcome.code is not Code.HTTP_STATUS or status is None:
        return False
    return 400 <= status < 500 and status not in _PASSING_CLIENT_ERRORS


def _wait_s(outcome: Outcome, delay_s: float, rng: Jitter) -> float:
    """The schedule's delay with jitter, or longer when the receiver is overloaded or asks for it."""
    wait_s = delay_s * rng.uniform(*_JITTER)
    if is_overload(outcome):
        wait_s = max(wait_s, _OVERLOAD_WAIT_S)
    asked_s = outcome.retry_after_s
    if asked_s is None or math.isnan(asked_s):
        return wait_s
    longest_s = max(2 * wait_s, _RETRY_AFTER_SPAN_S)
    return min(max(asked_s, wait_s), longest_s, _RETRY_AFTER_CAP_S)
