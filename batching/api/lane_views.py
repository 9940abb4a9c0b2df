"""Lanes and accounts: how full they are, who holds them, who waits, and stopping their flow.

A project sees the accounts that it may use. It steers those that are its alone; what other projects use as well
is refused as ``shared_account``. Of other projects' batches it sees sizes and places, never ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from batching import audit, capacity, order, queueing
from batching.api import queue_shapes
from batching.api.auth import Caller
from batching.api.destination_shapes import Why
from batching.api.errors import Conflict, not_found
from batching.api.operations import Answer, Parameter, operation, render, wrong_parameter
from batching.api.paging import CURSOR, LIMIT, newest_first
from batching.api.queue_shapes import AccountList, AccountShown, LaneDetail, LanePage
from batching.api.queue_views import WHY, read, require_alone
from batching.figures import figures
from batching.models import Account, Batch, Lane
from batching.models.projects import Scope
from batching.steering import Refused

_SHOWN: Final = 200
_FAILS: Final = (400, 404, 409, 413, 415, 422)
_LANE: Final = {200: Answer("The lane as it is now.", LaneDetail)}
_ACCOUNT: Final = {200: Answer("The account as it is now.", AccountShown)}
_FILTERS: Final = {"account": "account__name", "model": "model", "url": "endpoint"}


@operation(
    scope=Scope.READ,
    query=(
        Parameter(name="account", about="Only those of this account, by its name."),
        Parameter(name="model", about="Only those for this model."),
        Parameter(name="url", about="Only those for this endpoint, such as /v1/responses."),
        CURSOR,
        LIMIT,
    ),
    answers={200: Answer("A page, newest first.", LanePage)},
    fails=(400,),
)
def list_lanes(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List the lanes of your accounts with what each may have at its provider, and has."""
    given = {field: request.GET[n] for n, field in _FILTERS.items() if request.GET.get(n)}
    if any("\0" in value for value in given.values()):
        raise wrong_parameter("filter", "must not hold NUL")
    page, cursor = newest_first(_lanes(caller).filter(**given), request)
    found = figures(page, timezone.now())
    data = [queue_shapes.lane_summary(row, found[row.pk]) for row in page]
    return render(msgspec.json.encode(LanePage(data=data, next_cursor=cursor)))


@operation(scope=Scope.READ, answers=_LANE, fails=(404,))
def show_lane(request: HttpRequest, caller: Caller, lane_id: str) -> HttpResponse:
    """Show one lane: its figures, who holds its room, and who waits for it in which order."""
    return _lane(caller, _find_lane(caller, lane_id))


@operation(scope=Scope.OPERATE, body=WHY, answers=_LANE, fails=_FAILS)
def pause_lane(request: HttpRequest, caller: Caller, lane_id: str) -> HttpResponse:
    """Start no batch of a lane; the provider finishes what it holds."""
    return _lane_deed(queueing.pause_lane, "lane.pause", request, caller, lane_id)


@operation(scope=Scope.OPERATE, body=WHY, answers=_LANE, fails=_FAILS)
def resume_lane(request: HttpRequest, caller: Caller, lane_id: str) -> HttpResponse:
    """Start batches of a lane again."""
    return _lane_deed(queueing.resume_lane, "lane.resume", request, caller, lane_id)


@operation(scope=Scope.OPERATE, body=WHY, answers=_LANE, fails=_FAILS)
def freeze_lane(request: HttpRequest, caller: Caller, lane_id: str) -> HttpResponse:
    """Keep what was learned of the limit of the lane's model, and learn no more."""
    return _lane_deed(capacity.freeze, "lane.freeze", request, caller, lane_id)


@operation(scope=Scope.OPERATE, body=WHY, answers=_LANE, fails=_FAILS)
def unfreeze_lane(request: HttpRequest, caller: Caller, lane_id: str) -> HttpResponse:
    """Go on learning the limit of the lane's model."""
    return _lane_deed(capacity.unfreeze, "lane.unfreeze", request, caller, lane_id)


@operation(scope=Scope.READ, answers={200: Answer("All of them.", AccountList)})
def list_accounts(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List the accounts that your requests may go through, your own first."""
    rows = _accounts(caller).order_by(F("project").asc(nulls_last=True), "name")
    data = [queue_shapes.account_shown(row) for row in rows]
    return render(msgspec.json.encode(AccountList(data=data)))


@operation(scope=Scope.READ, answers=_ACCOUNT, fails=(404,))
def show_account(request: HttpRequest, caller: Caller, account: str) -> HttpResponse:
    """Show one account, and whether batches are started through it."""
    return render(msgspec.json.encode(queue_shapes.account_shown(_find_account(caller, account))))


@operation(scope=Scope.OPERATE, body=WHY, answers=_ACCOUNT, fails=_FAILS)
def pause_account(request: HttpRequest, caller: Caller, account: str) -> HttpResponse:
    """Start no batch through an account; requests for it are taken, and its batches are polled."""
    return _account_deed(queueing.pause_account, "account.pause", request, caller, account)


@operation(scope=Scope.OPERATE, body=WHY, answers=_ACCOUNT, fails=_FAILS)
def resume_account(request: HttpRequest, caller: Caller, account: str) -> HttpResponse:
    """Start batches through an account again."""
    return _account_deed(queueing.resume_account, "account.resume", request, caller, account)


def _accounts(caller: Caller) -> QuerySet[Account]:
    return Account.objects.filter(Q(project=caller.project) | Q(project__isnull=True))


def _lanes(caller: Caller) -> QuerySet[Lane]:
    return Lane.objects.filter(account__in=_accounts(caller)).select_related("account")


def _find_lane(caller: Caller, lane_id: str) -> Lane:
    is_number = lane_id.isascii() and lane_id.isdecimal() and len(lane_id) < 19
    row = _lanes(caller).filter(pk=int(lane_id)).first() if is_number else None
    if row is None:
        raise not_found("lane")
    return row


def _find_account(caller: Caller, name: str) -> Account:
    row = _accounts(caller).filter(name=name).first() if "\0" not in name else None
    if row is None:
        raise not_found("account")
    return row


def _lane(caller: Caller, row: Lane) -> HttpResponse:
    held = list(capacity.holders(row).order_by("create_started_at", "pk")[:_SHOWN])
    line = list(order.line_of(row)[:_SHOWN])
    theirs = _of_project(caller, [*held, *line])
    summary = queue_shapes.lane_summary(row, figures([row], timezone.now())[row.pk])
    shown = LaneDetail(
        **msgspec.structs.asdict(summary),
        held_by=[queue_shapes.holder(one, is_theirs=one.pk in theirs) for one in held],
        line=[
            queue_shapes.waiter(one, place, is_theirs=one.pk in theirs)
            for place, one in enumerate(line, start=1)
        ],
    )
    return render(msgspec.json.encode(shown))


def _of_project(caller: Caller, batches: Iterable[Batch]) -> set[int]:
    """Return the numbers of those batches that hold a request of the caller's."""
    mine = Batch.objects.of_project(caller.project.pk).filter(pk__in=[b.pk for b in batches])
    return set(mine.values_list("pk", flat=True))


def _lane_deed(
    deed: Callable[..., None], action: str, request: HttpRequest, caller: Caller, lane_id: str
) -> HttpResponse:
    row = _find_lane(caller, lane_id)
    require_alone(caller, row.account)
    _do(deed, action, request, caller, row)
    return _lane(caller, row)


def _account_deed(
    deed: Callable[..., None], action: str, request: HttpRequest, caller: Caller, name: str
) -> HttpResponse:
    row = _find_account(caller, name)
    require_alone(caller, row)
    _do(deed, action, request, caller, row)
    return render(msgspec.json.encode(queue_shapes.account_shown(row)))


def _do(
    deed: Callable[..., None], action: str, request: HttpRequest, caller: Caller, row: Any
) -> None:
    """Do and record it; what is refused is 409 with the state that the row really has."""
    reason = read(request, Why).reason
    try:
        audit.done(deed, row, action=action, by=caller.actor, reason=reason, now=timezone.now())
    except Refused as problem:
        row.refresh_from_db()
        raise Conflict(problem.code, problem.detail, meta={"state": row.state}) from problem
