"""How fast a key may call and send lines: 429 with Retry-After, and headers that say what is left.

A bucket holds one minute's worth (`Allowance`, shared by all processes). So that most calls write nothing, a
process takes a second's worth at a time and hands that out by itself: within any minute all processes
together let through at most the limit, what had filled up before, and one second's worth for each process.
A bulk upload that has begun is read to its end and owes what it took beyond the bucket: the next one
waits. Called by `operations` for each call, and by the doors that take lines.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponseBase

from batching.api.errors import ApiError
from batching.models import Allowance, ApiKey
from batching.overrides import effective

CALLS: Final = Allowance.Kind.CALLS
LINES: Final = Allowance.Kind.LINES


@dataclass
class _Purse:
    """What this process took from a bucket and has not handed out yet."""

    in_hand: int = 0
    left: int = 0
    """In the bucket when it was last looked into."""
    full_in_s: float = 0.0


_purses: dict[tuple[int, str], _Purse] = {}
_lock = threading.Lock()


def forget() -> None:
    """Drop what is in hand; between two tests."""
    with _lock:
        _purses.clear()


def limit_of(key: ApiKey, kind: str) -> int:
    """Return how many a minute the key may have; 0: as many as it likes."""
    own = key.calls_per_minute if kind == CALLS else key.lines_per_minute
    if own is not None:
        return own
    default: int = (
        effective("BATCHER_CALLS_PER_MINUTE")
        if kind == CALLS
        else effective("BATCHER_LINES_PER_MINUTE")
    )
    return default


def spend_call(request: HttpRequest, key: ApiKey) -> None:
    """Count one call, and note on the request what `tell` will say. Raises ApiError 429."""
    limit = limit_of(key, CALLS)
    if not limit:
        return
    purse, is_given = _spend(key, CALLS, limit)
    headers = {
        "RateLimit-Limit": f"{limit}",
        "RateLimit-Remaining": f"{purse.left + purse.in_hand}",
        "RateLimit-Reset": f"{math.ceil(purse.full_in_s)}",
    }
    request.META["batcher.pace"] = headers
    if not is_given:
        raise _too_fast(CALLS, limit, purse.full_in_s)


def tell(request: HttpRequest, answer: HttpResponseBase) -> HttpResponseBase:
    """Write onto an answer what is left of the key's calls, unless it tells of its lines."""
    for name, value in request.META.get("batcher.pace", {}).items():
        answer.headers.setdefault(name, value)
    return answer


def spend_line(key: ApiKey) -> None:
    """Count one line. Raises ApiError 429."""
    limit = limit_of(key, LINES)
    if limit:
        purse, is_given = _spend(key, LINES, limit)
        if not is_given:
            raise _too_fast(LINES, limit, purse.full_in_s)


def require_lines(key: ApiKey) -> None:
    """Raise ApiError 429 unless an upload may begin: its key has a line left, and owes none."""
    limit = limit_of(key, LINES)
    if limit:
        full_in_s = Allowance.full_in_s(key, LINES, now_s=time.time())
        if full_in_s > 60 - 60 / limit:
            raise _too_fast(LINES, limit, full_in_s)


def charge_lines(key: ApiKey, count: int) -> None:
    """Count lines of an upload that has begun."""
    limit = limit_of(key, LINES)
    if limit and count:
        Allowance.charge(key, LINES, count, per_minute=limit, now_s=time.time())


def _spend(key: ApiKey, kind: str, limit: int) -> tuple[_Purse, bool]:
    with _lock:
        purse = _purses.setdefault((key.pk, kind), _Purse())
        if purse.in_hand > 0:
            purse.in_hand -= 1
            return purse, True
    return purse, _fill(purse, key, kind, limit)


def _fill(purse: _Purse, key: ApiKey, kind: str, limit: int) -> bool:
    """Take a second's worth from the bucket, or the last one there is, and hand one out."""
    now_s = time.time()
    taken = 0
    for wanted in sorted({max(1, limit // 60), 1}, reverse=True):
        if Allowance.take(key, kind, wanted, per_minute=limit, now_s=now_s):
            taken = wanted
            break
    full_in_s = Allowance.full_in_s(key, kind, now_s=now_s)
    with _lock:
        purse.in_hand += max(0, taken - 1)
        purse.full_in_s = full_in_s
        purse.left = max(0, math.floor((60 - full_in_s) * limit / 60 + 1e-6))
    return taken > 0


def _too_fast(kind: str, limit: int, full_in_s: float) -> ApiError:
    wait_s = max(1, math.ceil(full_in_s - 60 + 60 / limit))
    detail = f"this API key may have {limit:,} {kind} a minute; go on in {wait_s} s"
    headers = {
        "Retry-After": f"{wait_s}",
        "RateLimit-Limit": f"{limit}",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": f"{math.ceil(full_in_s)}",
    }
    return ApiError("rate_limited", detail, headers=headers)
