"""One call, one request: `POST /v1/responses` and its like, answered when the batch is.

Decides how a call is held open until its answer is there, and what is said when it is not: 202, and where to
ask again. The provider's status and body are handed on as they came. The request is like any other: a
client that goes away cancels nothing. `call_headers` reads what is asked for, `call_names` knows
which request a repeat means, `waiting` bounds who waits.
"""

from __future__ import annotations

from collections.abc import Collection
from logging import getLogger
from typing import Final

import msgspec
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Struct

from batching import answerline, audit, steering, wire
from batching.api import pace, reading, together, waiting
from batching.api.auth import Caller
from batching.api.doors import AsItCame
from batching.api.errors import ApiError, not_found
from batching.api.intake_views import refuse_in_maintenance
from batching.api.openai import call_headers, call_names
from batching.api.openai.call_headers import Wait
from batching.api.openai.door import Problem
from batching.api.operations import JSON, Answer, Body, operation, render
from batching.api.waiting import Seat
from batching.intake import Rejected, fingerprint
from batching.lifecycle import RequestState
from batching.models import Answer as AnswerRow
from batching.models import Request
from batching.models.projects import Scope
from batching.overrides import effective
from batching.wire import Invalid, Line
from delivery import why

logger = getLogger(__name__)

_OPEN: Final = {RequestState.PENDING: "queued", RequestState.PROCESSING: "in_progress"}
_NOT_YET, _BAD_GATEWAY = 202, 502
_STATUS_OF: Final = {"expired": 504, "cancelled": 409}
_MOST_RETRY_S: Final = 60


class CallState(Struct, frozen=True, kw_only=True):
    """A request without an answer; ``status`` is a word of OpenAI's background responses."""

    id: str
    object: str = "batcher.request"
    status: str
    created_at: int
    """Unix seconds."""
    model: str
    custom_id: str
    location: str
    """Path to ask again at."""
    why: str
    """What it waits for."""


class TakenBack(Struct, frozen=True, kw_only=True):
    """A request that will not be sent."""

    id: str
    object: str = "batcher.request.deleted"
    deleted: bool = True


_OPEN_ANSWER: Final = {202: Answer("No answer yet: ask again at `Location`.", CallState)}


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=dict, example="{}"),
    answers=_OPEN_ANSWER,
    fails=(400, 409, 413, 415, 503),
    knows_repeats=True,
)
def post_call(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Send one request, and wait for its answer."""
    wait = call_headers.wait_of(request, default_s=effective("BATCHER_CALL_WAIT_SECONDS"))
    may_read = caller.key.allows(Scope.READ)
    if wait.seconds and not may_read:
        detail = f"to wait for the answer, this API key needs the scope `{Scope.READ}`"
        raise ApiError("insufficient_scope", detail)
    line = _line(request, caller)
    refuse_in_maintenance()
    with waiting.seat(caller.key.pk, is_wanted=wait.seconds > 0) as seat:
        if seat.why_not:
            return _ended(_ended_before(caller, line, seat))
        pace.spend_line(caller.key)
        row = _rows(caller.project.pk).get(key=_accepted(request, caller, line))
        return _handed_over(row, wait) if may_read else _open(row)


def _line(request: HttpRequest, caller: Caller) -> Line:
    fields = call_headers.fields_of(request)
    body = reading.read_body(request)
    fields["custom_id"] = call_names.custom_id_of(request, caller, body, timezone.now())
    try:
        return wire.read_call(request.path_info, body, fields)
    except Invalid as wrong:
        raise call_headers.problem(wrong.code, wrong.detail, wrong.pointer) from wrong


def _accepted(request: HttpRequest, caller: Caller, line: Line) -> str:
    """Store the request, unless it is here, and return its key. Raises ApiError."""
    taken = together.accept(caller, line)
    if not isinstance(taken, Rejected):
        return taken.key
    if taken.pointer == "/custom_id" and call_headers.CUSTOM_ID not in request.headers:
        detail = "this Idempotency-Key was used for another call"
        raise ApiError("idempotency_key_reused", detail)
    raise call_headers.problem(taken.code, taken.detail, taken.pointer)


def _ended_before(caller: Caller, line: Line, seat: Seat) -> Request:
    """Return what a repeat of a call means that needs no seat. Raises ApiError 429 for any other."""
    row = _rows(caller.project.pk).filter(custom_id=line.custom_id, scope="").first()
    if row is None or _is_open(row) or row.fingerprint != fingerprint(line):
        raise _no_seat(seat)
    return row


def _no_seat(seat: Seat) -> ApiError:
    detail = f"{seat.why_not}; come again, or ask for no wait with `Prefer: respond-async`"
    headers = {"Retry-After": f"{waiting.RETRY_AFTER_S}"}
    return ApiError("too_many_waiting", detail, headers=headers)


def _handed_over(row: Request, wait: Wait) -> HttpResponse:
    """Answer the call that a request came with, and note whether it got what it wants."""
    call_names.hold(row.custom_id)
    is_given = False
    try:
        answer = _answered(row, wait)
        is_given = answer.status_code != _NOT_YET
    finally:
        (call_names.give if is_given else call_names.let_go)(row.custom_id)
    return answer


@operation(scope=Scope.READ, answers=_OPEN_ANSWER, fails=(404, 429))
def show_call(request: HttpRequest, caller: Caller, request_id: str) -> HttpResponse:
    """Return the answer of a request; waits for it when asked to."""
    wait = call_headers.wait_of(request, default_s=0)
    row = _found(request, caller, request_id)
    is_wanted = wait.seconds > 0 and _is_open(row)
    with waiting.seat(caller.key.pk, is_wanted=is_wanted) as seat:
        if seat.why_not:
            raise _no_seat(seat)
        return _answered(row, wait)


@operation(scope=Scope.OPERATE, answers={200: Answer("Taken back.", TakenBack)}, fails=(404,))
def delete_call(request: HttpRequest, caller: Caller, request_id: str) -> HttpResponse:
    """Take a request back before it is sent to the provider."""
    row = _taken_back(request, caller, request_id)
    return render(msgspec.json.encode(TakenBack(id=row.key)))


@operation(scope=Scope.OPERATE, answers={200: Answer("Taken back.", CallState)}, fails=(404,))
def cancel_call(request: HttpRequest, caller: Caller, request_id: str) -> HttpResponse:
    """Take a request back, in the words of OpenAI's background responses."""
    row = _taken_back(request, caller, request_id)
    return render(msgspec.json.encode(_state(row, row.outcome)))


def _taken_back(request: HttpRequest, caller: Caller, request_id: str) -> Request:
    row = _found(request, caller, request_id)
    return audit.done(
        steering.cancel_request,
        row,
        action="request.cancel",
        by=caller.actor,
        reason="cancelled by its client",
        now=timezone.now(),
    )


def _rows(project_id: int) -> QuerySet[Request]:
    rows = Request.objects.filter(project_id=project_id)
    return rows.select_related("lane__account", "batch__lane").defer(
        "lane__account__api_key", "lane__account__webhook_secret", "batch__provider_object"
    )


def _found(request: HttpRequest, caller: Caller, request_id: str) -> Request:
    """Return the request of a path like ``/v1/responses/req_…``. Raises ApiError 404."""
    row = (
        _rows(caller.project.pk).filter(key=request_id).first() if "\0" not in request_id else None
    )
    if row is None or not request.path_info.startswith(f"{row.lane.endpoint}/"):
        raise not_found("request")
    return row


def _is_open(row: Request) -> bool:
    return row.state in _OPEN


def _find_ended(row_ids: Collection[int]) -> Collection[int]:
    """Return those that are open no longer, or gone."""
    rows = Request.objects.filter(pk__in=row_ids).undecided()
    return set(row_ids) - set(rows.values_list("pk", flat=True))


_ends = waiting.Watch(_find_ended)


def _answered(row: Request, wait: Wait) -> HttpResponse:
    """Return what a request came to, as soon as it did; else how it is when the time is up."""
    if wait.seconds and _is_open(row):
        _ends.wait(row.pk, wait.held_s)
        row = _again(row)
    answer = _open(row) if _is_open(row) else _ended(row)
    if wait.is_preference:
        answer[call_headers.APPLIED] = f"wait={wait.seconds}"
    return answer


def _again(row: Request) -> Request:
    """Return the row as it is by now. Raises ApiError 404 when it was deleted."""
    found = _rows(row.project_id).filter(pk=row.pk).first()
    if found is None:
        raise not_found("request")
    return found


def _open(row: Request) -> HttpResponse:
    state = _state(row, _OPEN.get(RequestState(row.state), "completed"))
    answer = render(msgspec.json.encode(state), _NOT_YET)
    answer["Location"] = state.location
    looked_at_every_s = row.lane.account.poll_seconds or effective("BATCHER_POLL_SECONDS")
    answer["Retry-After"] = f"{min(looked_at_every_s, _MOST_RETRY_S)}"
    return answer


def _state(row: Request, status: str) -> CallState:
    return CallState(
        id=row.key,
        status=status,
        created_at=int(row.created_at.timestamp()),
        model=row.lane.model,
        custom_id=row.custom_id,
        location=_location(row),
        why=str(why.of_request(row, timezone.now())),
    )


def _location(row: Request) -> str:
    return f"{row.lane.endpoint}/{row.key}"


def _ended(row: Request) -> HttpResponse:
    """Return the provider's answer as it came, or an error that says why there is none."""
    given = AnswerRow.objects.filter(request=row, attempt=row.attempt).first()
    answer = _as_it_came(row, given) if given else None
    if answer is None:
        answer = _without_answer(row)
    answer["Content-Location"] = _location(row)
    answer["X-Batcher-Request-Id"] = row.key
    if answer.status_code >= 400:
        answer["X-Should-Retry"] = "false"
    return answer


def _as_it_came(row: Request, given: AnswerRow) -> HttpResponse | None:
    try:
        response = answerline.members(bytes(given.line)).response
        cut = answerline.object_members(bytes(response)) if response != answerline.NULL else {}
    except (ValueError, RecursionError):
        logger.exception("answer unreadable", extra={"request": row.key})
        return None
    body = cut.get("body", answerline.NULL)
    if body == answerline.NULL:
        return None
    status = given.status_code or 0
    return AsItCame(
        bytes(body), content_type=JSON, status=status if 200 <= status < 600 else _BAD_GATEWAY
    )


def _without_answer(row: Request) -> HttpResponse:
    if row.outcome == "succeeded":
        return Problem(410, "The answer is not kept any more.", code="result_gone").response()
    message = row.error_message or f"The request was {row.outcome}."
    status = _STATUS_OF.get(row.outcome, _BAD_GATEWAY)
    return Problem(status, message, code=row.error_code or row.outcome).response()
