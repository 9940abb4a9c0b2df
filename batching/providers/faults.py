"""What a failed call tells: HTTP statuses, error bodies and broken connections → ProviderError.

Pure: no network, no clock of its own. The one question that costs money is whether a call may have
had its effect; whatever does not prove the opposite counts as ``Trouble.UNKNOWN``. Called by
``http``. Why so strict: providers take no idempotency key when a batch is created.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from batching.providers import tolerant
from batching.providers.base import NotFound, ProviderError, QueueFull, RemoteError, Trouble

MAX_WAIT_S = 86_400.0
"""A longer Retry-After is taken for this one: a wrong header must not park an account for a year."""

NEEDS_A_PERSON = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
)
QUEUE_FULL = "token_limit_exceeded"

_NEVER_SENT = (ConnectTimeoutError, NewConnectionError, ssl.SSLCertVerificationError)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to a provider, as far as its failure is concerned."""

    name: str
    """Method and path for people, such as ``POST /batches``."""
    has_effect: bool
    """True when making it twice would do something twice."""

    @property
    def doubt(self) -> Trouble:
        """What an ending that proves nothing means."""
        return Trouble.UNKNOWN if self.has_effect else Trouble.RETRY


def refusal(
    call: Call, status: int, *, headers: Mapping[str, str], body: bytes, now: datetime
) -> ProviderError:
    """Return the error for an answer outside 2xx."""
    error = read_error(body)
    code = error.code if error else ""
    said = f"{call.name} answered {status}" + (f": {error.message}" if error else "")
    after_s = retry_after_s(headers, now=now)
    if code == QUEUE_FULL:
        return QueueFull(said, status=status, after_s=after_s)
    if status == 404:
        return NotFound(said, code=code)
    trouble = _trouble(call, status, error)
    return ProviderError(said, trouble=trouble, after_s=after_s, status=status, code=code)


def _trouble(call: Call, status: int, error: RemoteError | None) -> Trouble:
    if status in {401, 402, 403} or (error and error.code in NEEDS_A_PERSON):
        return Trouble.CREDENTIALS
    if status == 429 and error:
        return (
            Trouble.RETRY
        )  # the provider itself says so; a bare 429 may come from anything between
    if status in {408, 409, 425, 429} or status >= 500:
        return call.doubt
    return Trouble.REFUSED


def lost(call: Call, cause: BaseException, *, deadline_s: float | None = None) -> ProviderError:
    """Return the error for a call that brought no usable answer.

    ``deadline_s`` is given when the wall clock ended it.
    """
    reasons = tuple(_reasons(cause))
    if any(isinstance(each, _NEVER_SENT) for each in reasons):
        return ProviderError(
            f"{call.name} could not connect ({_name(reasons)})", trouble=Trouble.RETRY
        )
    why = _name(reasons) if deadline_s is None else f"cut off after {deadline_s:g} s"
    return ProviderError(f"{call.name} got no whole answer ({why})", trouble=call.doubt)


def unreadable(call: Call, status: int) -> ProviderError:
    """Return the error for a 2xx whose body is not what the provider documents."""
    return ProviderError(
        f"{call.name} answered {status} with an unreadable body", trouble=call.doubt, status=status
    )


def read_error(body: bytes) -> RemoteError | None:
    """Read an error body: OpenAI's shape, a bare string, ``detail`` or ``message``; else None."""
    try:
        whole = tolerant.mapping(tolerant.parse(body))
    except ValueError:
        return None
    found = next((whole[name] for name in ("error", "detail", "message") if whole.get(name)), None)
    if isinstance(found, list) and found:
        found = found[0]  # FastAPI's list of validation errors
    if isinstance(found, str):
        return RemoteError(code=tolerant.text(whole.get("code"), limit=100), message=found[:500])
    if not isinstance(found, dict):
        return None
    inner = tolerant.mapping(found.get("error")) or found
    code = tolerant.text(inner.get("code"), limit=100) or tolerant.text(
        inner.get("type"), limit=100
    )
    return RemoteError(code=code, message=tolerant.text(inner.get("message") or inner.get("msg")))


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Read ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date), from 0 to MAX_WAIT_S."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(header)
        if value is None:
            continue
        seconds = _number(value)
        wait_s = seconds * unit_s if seconds is not None else _until(value, now)
        if wait_s is not None:
            return min(max(wait_s, 0.0), MAX_WAIT_S)
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until(value: str, now: datetime) -> float | None:
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()


def _reasons(cause: BaseException) -> Iterator[BaseException]:
    """Yield the exception and those that it wraps, outermost first.

    ``__context__`` is left out on purpose: it may hold an exception of an earlier call, whose proof
    that nothing was sent would then count for this one.
    """
    waiting, seen = [cause], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (getattr(each, "reason", None), *each.args, each.__cause__)
        waiting.extend(one for one in inner if isinstance(one, BaseException))


def _name(reasons: tuple[BaseException, ...]) -> str:
    """Name what went wrong by class only: the texts of these exceptions may quote URLs and headers."""
    for each in reasons:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {each.verify_message}"
        if isinstance(each, _NEVER_SENT):
            return type(each).__name__
    return type(reasons[0]).__name__
