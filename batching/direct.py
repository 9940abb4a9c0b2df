"""Requests that no batch brings in time, asked of the provider one by one, at its ordinary price and under a cap.

Only for projects whose policy says so. The cap holds for a project and a day (UTC): what a call may cost is
booked before it is made, and corrected by what it did cost. A model without a known price is not asked: its
request waits for its batch. The intent is committed before a call. One whose outcome nobody knows is never
made again, for a provider shows no trace of it: its request fails, and a person may retry it. Called by the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.db import models, transaction

from batching import costs, deadlines, endings
from batching.claims import running_clock
from batching.gateway import connect, note_trouble
from batching.lifecycle import Actor, RequestState, move_many
from batching.models import Account, Answer, DirectCall, DirectSpend, Request
from batching.models.projects import DeadlinePolicy
from batching.providers.base import AnswerLine, AnswersNow, Kind, ProviderError, Trouble, Usage

logger = logging.getLogger(__name__)

_DIRECT = Actor(name="direct")
_AT_ONCE = 16
"""Calls of one turn; the next turn begins when all are back."""
_LONGEST = timedelta(minutes=15)
"""Longer than any call: one that is open for longer was lost with its worker."""
_LOOKED_AT = 64
_PAUSE, _TRIES = timedelta(seconds=30), 3
_NEVER = timedelta(days=3650)
_OUTPUT_GUESS = 4_096
"""Tokens of an answer whose request sets no limit."""
_LONGEST_OUTPUT = 10_000_000


_DEFINITE = frozenset({500, 503, 529})
"""The model's own server says that there is no answer, and bills none; 502 and 504 are a gateway's guess."""


class _Limits(msgspec.Struct):
    """What a body says of the length of its answer."""

    max_output_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One call to be made, with all that a thread needs."""

    call: DirectCall
    account: Account
    endpoint: str
    key: str
    body: bytes


def answer_late(now: datetime) -> int:
    """Ask directly for what can't make it in a batch, as far as the caps go; return how many were asked."""
    _give_up_lost(now)
    if DirectCall.objects.open().exists():
        return 0
    asked = _claim(now)
    clock = running_clock(now)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        calls = {pool.submit(_ask, each): each for each in asked}
        for done in as_completed(calls):
            _record(calls[done], done, clock())
    return len(asked)


def _ask(asked: _Asked) -> AnswerLine:
    """Make one call, in a thread that touches no database."""
    provider = connect(asked.account)
    if not isinstance(provider, AnswersNow):
        raise ProviderError("it answers in batches only", trouble=Trouble.REFUSED)
    return provider.ask(custom_id=asked.key, endpoint=asked.endpoint, body=asked.body)


def _claim(now: datetime) -> list[_Asked]:
    """Commit the intent to ask for up to ``_AT_ONCE`` requests, nearest deadline first."""
    claimed: list[_Asked] = []
    for part in deadlines.late(DeadlinePolicy.DIRECT, now):
        with transaction.atomic():
            claimed += _claim_of(part, _AT_ONCE - len(claimed), now)
        if len(claimed) >= _AT_ONCE:
            break
    return claimed


def _claim_of(part: Sequence[int], most: int, now: datetime) -> list[_Asked]:
    booked = _booked(part, most, now)
    if not booked:
        return []
    ours, batches = deadlines.take_back(list(booked), now)
    whole = ours.select_related("lane__account", "payload")
    ready = list(whole.select_for_update(of=("self",)))
    for pk in booked.keys() - {request.pk for request in ready}:  # a provider has it by now
        request = Request.objects.select_related("project").get(pk=pk)
        DirectSpend.correct(request.project_id, -booked[pk], now)
    intents = [_intend(request, booked[request.pk], now) for request in ready]
    reason = "asked directly: no batch brings it in time"
    if ready:
        move_many(ours.filter(pk__in=[request.pk for request in ready]), "submitted", reason=reason,
              by=_DIRECT, now=now, changes={"batch": None})  # fmt: skip
    deadlines.count_again(batches)
    return intents


def _booked(part: Sequence[int], most: int, now: datetime) -> dict[int, int]:
    """Choose requests and book what each may cost, in nano-dollars, by number of the request."""
    booked: dict[int, int] = {}
    for request in _candidates(part, now)[:_LOOKED_AT]:
        nano = _most_it_costs(request, now)
        if nano is None or len(booked) >= most:
            break  # all of a part are of one lane: no other has a known price
        if DirectSpend.book(request.project, nano, now):
            booked[request.pk] = nano
    return booked


def _candidates(part: Sequence[int], now: datetime) -> models.QuerySet[Request]:
    """Return those that were not asked in vain just now and whose project may spend, nearest deadline first."""
    resting = DirectCall.objects.filter(request=models.OuterRef("pk"), again_at__gt=now)
    rows = Request.objects.filter(~models.Exists(resting), pk__in=part)
    rows = rows.exclude(project__in=DirectSpend.exhausted(now)).exclude(project__direct_cap=0)
    return rows.select_related("project", "lane__account", "payload").order_by("deliver_by", "pk")


def _most_it_costs(request: Request, now: datetime) -> int | None:
    """Return what its answer may cost, in nano-dollars; None when its price is unknown."""
    try:
        limits = msgspec.json.decode(bytes(request.payload.body), type=_Limits)
    except msgspec.DecodeError:
        limits = _Limits()
    longest = limits.max_output_tokens or limits.max_completion_tokens or limits.max_tokens
    output = min(max(longest or _OUTPUT_GUESS, 0), _LONGEST_OUTPUT)
    usage = Usage(input_tokens=request.token_estimate, output_tokens=output)
    return costs.price(usage, costs.tariff(request.lane, now, is_batch=False))


def _intend(request: Request, nano: int, now: datetime) -> _Asked:
    call = DirectCall.objects.create(
        request=request,
        attempt=request.attempt,
        project_id=request.project_id,
        booked_nano=nano,
        started_at=now,
    )
    return _Asked(
        call=call,
        account=request.lane.account,
        endpoint=request.lane.endpoint,
        key=request.key,
        body=bytes(request.payload.body),
    )


def _record(asked: _Asked, done: Future[AnswerLine], now: datetime) -> None:
    """Write down what came of a call; what went wrong with one stops no other."""
    error = done.exception()
    if error is None:
        _answered(asked, done.result(), now)
        return
    if isinstance(error, ProviderError):
        note_trouble(asked.account, error, now)
        _not_answered(asked.call, error, now)
        return
    logger.error("direct call failed", extra={"request": asked.key}, exc_info=error)
    _not_answered(asked.call, ProviderError(type(error).__name__, trouble=Trouble.UNKNOWN), now)


@transaction.atomic
def _answered(asked: _Asked, line: AnswerLine, now: datetime) -> None:
    row = Request.objects.select_related("lane__account").get(pk=asked.call.request_id)
    spent = costs.price(line.usage, costs.tariff(row.lane, asked.call.started_at, is_batch=False))
    if not asked.call.end(now, spent_nano=spent):
        return  # it was given up as lost meanwhile
    usage = line.usage or Usage()
    Answer.objects.create(
        request=row,
        attempt=asked.call.attempt,
        status_code=line.status_code,
        line=line.raw,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nano=spent,
        received_at=now,
    )
    cost = row.cost_nano if spent is None else (row.cost_nano or 0) + spent
    if line.kind is Kind.SUCCEEDED:
        endings.answered(_open(asked.call), reason="answered directly", now=now, by=_DIRECT,
                         cost_nano=cost)  # fmt: skip
        return
    Request.objects.filter(pk=row.pk).update(cost_nano=cost)
    _end(asked.call, line.error_code or "provider_error", line.error_message, now)


@transaction.atomic
def _not_answered(call: DirectCall, error: ProviderError, now: datetime) -> None:
    """Let it wait for a batch again, or another call; end it when it would never work, or in doubt."""
    if error.trouble is Trouble.UNKNOWN and error.status not in _DEFINITE:
        if call.end(now, spent_nano=None):
            _end(call, "deadline_exceeded", f"asked directly, and nobody knows what came of it: {error}", now)  # fmt: skip
        return
    tries = DirectCall.objects.filter(request=call.request_id).count()
    rest = timedelta(seconds=error.after_s or 0) + _PAUSE
    if not call.end(now, spent_nano=0, again_at=now + (_NEVER if tries >= _TRIES else rest)):
        return
    if error.trouble is Trouble.REFUSED:
        _end(call, error.code or "provider_refused", str(error), now)
        return
    endings.requeue(
        _open(call), reason=f"not answered directly: {error}"[:300], now=now, by=_DIRECT
    )


def _end(call: DirectCall, code: str, message: str, now: datetime) -> None:
    endings.end(_open(call), "fail", code=code[:100], message=message, now=now, by=_DIRECT)


def _open(call: DirectCall) -> models.QuerySet[Request]:
    """Return its request, while it waits for this call."""
    return Request.objects.filter(
        pk=call.request_id, attempt=call.attempt, batch__isnull=True, state=RequestState.PROCESSING
    )


def _give_up_lost(now: datetime) -> None:
    """End what was asked by a worker that is gone: what it may have cost stays booked."""
    for call in DirectCall.objects.open().filter(started_at__lte=now - _LONGEST):
        lost = ProviderError("its worker was lost", trouble=Trouble.UNKNOWN)
        _not_answered(call, lost, now)
