"""The place of a batch in its lane: paused, resumed, moved, promoted, given a priority.

To pause what is its own is a project's right. To change the order of a lane that other projects use is not: that
is refused as ``shared_account``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from batching import audit, order, queueing
from batching.api import batch_views, bodies, queue_shapes
from batching.api.auth import Caller
from batching.api.destination_shapes import Why
from batching.api.errors import ApiError
from batching.api.operations import Answer, Body, operation, render
from batching.api.queue_shapes import BatchPlaced, MoveTo, NewPriority
from batching.models import Account, Batch, Project
from batching.models.projects import Scope
from batching.wire import VALIDATION_ERROR, Invalid

Sent = TypeVar("Sent")
MAX_BODY_BYTES: Final = 16 * 1024
_PLACED: Final = {202: Answer("It is done; where the batch is now.", BatchPlaced)}
_FAILS: Final = (400, 404, 409, 413, 415, 422)
WHY: Final = Body(type=Why, example='{"reason": "the model is down"}')


def read(request: HttpRequest, type_: type[Sent]) -> Sent:
    """Return the body of a call. Raises Invalid, or ApiError."""
    return bodies.read(request, type_, queue_shapes.RULES, at_most=MAX_BODY_BYTES)


def require_alone(caller: Caller, account: Account) -> None:
    """Raise ApiError 409 unless the account serves the caller's project alone."""
    if account.project_id == caller.project.pk:
        return
    if Project.objects.exclude(pk=caller.project.pk).exists():
        detail = "other projects send through this account, too; an operator may do this"
        raise ApiError("shared_account", detail)


@operation(scope=Scope.OPERATE, body=WHY, answers=_PLACED, fails=_FAILS)
def pause_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Keep a batch from being started; it keeps its place, and the provider finishes what it holds."""
    row = batch_views.to_steer(caller, batch_id)
    return _done(queueing.pause, row, caller, read(request, Why), "Batch paused")


@operation(scope=Scope.OPERATE, body=WHY, answers=_PLACED, fails=_FAILS)
def resume_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Let a paused batch go again, from the place that it kept."""
    row = batch_views.to_steer(caller, batch_id)
    return _done(queueing.resume, row, caller, read(request, Why), "Batch resumed")


@operation(
    scope=Scope.OPERATE,
    body=Body(type=MoveTo, example='{"to": "top", "reason": "the customer waits"}'),
    answers=_PLACED,
    fails=_FAILS,
)
def move_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Move a waiting batch to the top or the bottom of its lane, or `before` another batch.

    It takes over the priority of the place where it goes.
    """
    row, sent = _to_place(caller, batch_id), read(request, MoveTo)
    return _done(_deed_of(sent, caller), row, caller, sent, "Batch moved", action="batch.move")


def _deed_of(sent: MoveTo, caller: Caller) -> Callable[..., None]:
    """Return what is to be done. Raises Invalid unless exactly one of the two is given."""
    if (sent.to is None) == (sent.before is None):
        raise Invalid(VALIDATION_ERROR, "give one of to and before", "/to")
    if sent.before is not None:
        return partial(queueing.move_before, other=batch_views.find(caller, sent.before))
    return queueing.move_to_top if sent.to == "top" else queueing.move_to_bottom


@operation(
    scope=Scope.OPERATE,
    body=Body(type=NewPriority, example='{"priority": 10}'),
    answers=_PLACED,
    fails=_FAILS,
)
def set_batch_priority(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Give a waiting batch a priority: those with a higher one go first, whatever their age."""
    row, sent = _to_place(caller, batch_id), read(request, NewPriority)
    deed = partial(queueing.set_priority, priority=sent.priority)
    return _done(deed, row, caller, sent, "Priority set", action="batch.priority")


@operation(scope=Scope.OPERATE, body=WHY, answers=_PLACED, fails=_FAILS)
def promote_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Let a waiting batch go before all others as soon as there is room."""
    row = _to_place(caller, batch_id)
    return _done(queueing.promote, row, caller, read(request, Why), "Batch promoted")


def _to_place(caller: Caller, batch_id: str) -> Batch:
    """Return a batch whose place is the caller's to choose. Raises ApiError 404 or 409."""
    row = batch_views.to_steer(caller, batch_id)
    require_alone(caller, row.lane.account)
    return row


def _done(
    deed: Callable[..., None],
    row: Batch,
    caller: Caller,
    why: Why,
    message: str,
    *,
    action: str = "",
) -> HttpResponse:
    action = action or f"batch.{deed.__name__}"
    with batch_views.told_with_state(row):
        audit.done(deed, row, action=action, by=caller.actor, reason=why.reason, now=timezone.now())
    placed = queue_shapes.batch_placed(row, order.place_of(row), message)
    return render(msgspec.json.encode(placed), 202)
