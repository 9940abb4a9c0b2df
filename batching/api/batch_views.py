"""Batches and submissions: looking at them, and doing something to a batch.

A project sees a batch while one of its requests is in it. What other projects share is not one project's
to steer: such a deed is refused as ``shared_batch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec
from django.db import models
from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from batching import audit, order, steering
from batching.api import shapes
from batching.api.auth import Caller
from batching.api.errors import ApiError, Conflict, not_found
from batching.api.operations import Answer, Parameter, flag, operation, render, wrong_parameter
from batching.api.paging import CURSOR, LIMIT, newest_first
from batching.api.request_views import history
from batching.api.shapes import (
    BatchDetail,
    BatchMoved,
    BatchPage,
    Progress,
    SubmissionDetail,
    SubmissionPage,
)
from batching.costs import dollars
from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Request, Submission
from batching.models.projects import Scope
from batching.steering import Refused
from delivery import redelivery, why

_FILTERS: Final = {
    "model": "lane__model",
    "url": "lane__endpoint",
    "account": "lane__account__name",
}


@operation(
    scope=Scope.READ,
    query=(
        Parameter(
            name="state",
            about="Only these.",
            schema={"type": "string", "enum": list(BatchState.values)},
        ),
        Parameter(name="model", about="Only those for this model."),
        Parameter(name="url", about="Only those for this endpoint, such as /v1/responses."),
        Parameter(name="account", about="Only those of this account, by its name."),
        CURSOR,
        LIMIT,
    ),
    answers={200: Answer("A page, newest first.", BatchPage)},
    fails=(400,),
)
def list_batches(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List the batches that hold requests of yours."""
    rows = Batch.objects.of_project(caller.project.pk).filter(**_filters(request))
    rows = rows.select_related("lane__account")
    rows = rows.defer("provider_object", "lane__account__api_key", "lane__account__webhook_secret")
    page, cursor = newest_first(rows, request)
    shown = BatchPage(data=[shapes.batch_summary(row) for row in page], next_cursor=cursor)
    return render(msgspec.json.encode(shown))


def _filters(request: HttpRequest) -> dict[str, str]:
    given = {field: request.GET[name] for name, field in _FILTERS.items() if request.GET.get(name)}
    if any("\0" in value for value in given.values()):
        raise wrong_parameter("filter", "must not hold NUL")
    if (state := request.GET.get("state")) is not None:
        if state not in BatchState.values:
            raise wrong_parameter("state", f"must be one of {', '.join(BatchState.values)}")
        given["state"] = state
    return given


@operation(
    scope=Scope.READ,
    answers={200: Answer("The batch with its history.", BatchDetail)},
    fails=(404,),
)
def show_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Show one batch, and how far your requests in it are."""
    row = find(caller, batch_id)
    mine = Request.objects.filter(batch=row, project=caller.project)
    requests, cost = _by_state(mine)
    shown = shapes.batch_detail(
        row,
        why=why.of_batch(row, timezone.now(), project_id=caller.project.pk),
        place=order.place_of(row),
        requests=requests,
        cost=cost,
        log=history(row),
    )
    return render(msgspec.json.encode(shown))


def find(caller: Caller, batch_id: str) -> Batch:
    """Return a batch with a request of the caller's in it. Raises ApiError 404."""
    rows = Batch.objects.of_project(caller.project.pk).select_related("lane__account")
    row = rows.filter(key=batch_id).first() if "\0" not in batch_id else None
    if row is None:
        raise not_found("batch")
    return row


def _by_state(rows: models.QuerySet[Request]) -> tuple[dict[str, int], str | None]:
    """Count requests by state, and add up what they cost."""
    grouped = rows.order_by().values("state").annotate(count=Count("pk"), cost=Sum("cost_nano"))
    counted = list(grouped)
    known = [int(each["cost"]) for each in counted if each["cost"] is not None]
    states = {each["state"]: each["count"] for each in counted}
    return states, dollars(sum(known)) if known else None


def to_steer(caller: Caller, batch_id: str) -> Batch:
    """Return a batch that is the caller's alone. Raises ApiError 404 or 409."""
    row = find(caller, batch_id)
    if Request.objects.filter(batch=row).exclude(project=caller.project).exists():
        detail = "other projects have requests in this batch; an operator may do this"
        raise ApiError("shared_batch", detail)
    return row


@contextmanager
def told_with_state(row: Batch) -> Iterator[None]:
    """Answer what is refused with 409 and the state that the batch really has."""
    try:
        yield
    except Refused as problem:
        row.refresh_from_db(fields=["state"])
        meta = {"state": row.state}
        raise Conflict(problem.code, problem.detail, meta=meta) from problem


def _moved(row: Batch, message: str) -> HttpResponse:
    row.refresh_from_db(fields=["state"])
    moved = BatchMoved(id=row.key, state=row.state, message=message)
    return render(msgspec.json.encode(moved), 202)


_MOVED: Final = {202: Answer("It is done, or under way.", BatchMoved)}


Deed = Callable[..., object]


def _deed(deed: Deed, caller: Caller, batch_id: str, *, asked: str, said: str) -> HttpResponse:
    row = _do(deed, caller, batch_id, asked=asked)
    return _moved(row, said)


def _do(deed: Deed, caller: Caller, batch_id: str, *, asked: str) -> Batch:
    row = to_steer(caller, batch_id)
    action, calls_outside = _ACTIONS[deed]
    with told_with_state(row):
        audit.done(deed, row, action=action, calls_outside=calls_outside, by=caller.actor,
                   reason=asked, now=timezone.now())  # fmt: skip
    return row


_redeliver_all = partial(redelivery.redeliver_batch, only_failed=False)
_redeliver_failed = partial(redelivery.redeliver_batch, only_failed=True)
_delete_whole = partial(steering.delete_batch, with_undelivered=True)
_ACTIONS: Final[dict[Deed, tuple[str, bool]]] = {
    steering.seal: ("batch.seal", False),
    steering.cancel_batch: ("batch.cancel", True),
    steering.restart_batch: ("batch.restart", False),
    steering.delete_batch: ("batch.remove", True),
    _delete_whole: ("batch.remove", True),
    _redeliver_all: ("batch.redeliver", False),
    _redeliver_failed: ("batch.redeliver_failed", False),
}
"""What the audit log calls each deed, and whether it asks the provider."""


@operation(
    scope=Scope.OPERATE,
    query=(
        Parameter(
            name="undelivered",
            about="true: confirms that results go, too, which were not delivered.",
            schema={"type": "boolean", "default": False},
        ),
    ),
    answers={204: Answer("It is gone.", media_type="")},
    fails=(400, 404, 409),
)
def delete_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Delete an ended batch, its requests with their answers, and its files at the provider.

    Refused with `undelivered` while results of it were not delivered, unless `undelivered=true` confirms it; one
    that still delivers can be deleted in no other way.
    """
    deed = _delete_whole if flag(request, "undelivered") else steering.delete_batch
    _do(deed, caller, batch_id, asked="deletion asked for")
    return HttpResponse(status=204)


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409))
def seal_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Send a building batch on its way as it is."""
    return _deed(steering.seal, caller, batch_id, asked="seal asked for", said="Batch sealed")


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409))
def cancel_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Stop a batch; answers that the provider has finished by then are kept and delivered."""
    asked, said = "cancelled by its client", "Cancellation triggered"
    return _deed(steering.cancel_batch, caller, batch_id, asked=asked, said=said)


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409))
def restart_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Send what a failed batch left unfinished again."""
    asked, said = "restart asked for", "Batch restarted"
    return _deed(steering.restart_batch, caller, batch_id, asked=asked, said=said)


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409))
def redeliver_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Deliver every result of a batch once more."""
    asked, said = "redelivery asked for", "Redelivery triggered"
    return _deed(_redeliver_all, caller, batch_id, asked=asked, said=said)


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409))
def redeliver_failed_of_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Deliver those results of a batch once more whose delivery was given up."""
    asked, said = "redelivery of failed ones asked for", "Redelivery triggered"
    return _deed(_redeliver_failed, caller, batch_id, asked=asked, said=said)


@operation(
    scope=Scope.READ,
    query=(CURSOR, LIMIT),
    answers={200: Answer("A page, newest first.", SubmissionPage)},
    fails=(400,),
)
def list_submissions(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your submissions a page at a time."""
    rows = Submission.objects.filter(project=caller.project)
    page, cursor = newest_first(rows, request)
    data = [shapes.submission_summary(row) for row in page]
    return render(msgspec.json.encode(SubmissionPage(data=data, next_cursor=cursor)))


@operation(
    scope=Scope.READ,
    answers={200: Answer("The submission and how far it is.", SubmissionDetail)},
    fails=(404,),
)
def show_submission(request: HttpRequest, caller: Caller, submission_id: str) -> HttpResponse:
    """Show one submission, and its requests by state."""
    mine = Submission.objects.filter(project=caller.project)
    row = mine.filter(key=submission_id).first() if "\0" not in submission_id else None
    if row is None:
        raise not_found("submission")
    requests = Request.objects.filter(submission=row)
    states, cost = _by_state(requests)
    detail = shapes.submission_detail(row, states, _progress(requests), cost)
    return render(msgspec.json.encode(detail))


def _progress(rows: models.QuerySet[Request]) -> Progress:
    """Count how far requests are, in one reading of them."""
    is_settled, is_out = Q(settled_at__isnull=False), Q(due_at__isnull=False)
    counted = rows.order_by().aggregate(
        total=Count("pk"),
        packed=Count("pk", filter=Q(batch__isnull=False) | is_settled),
        sent=Count("pk", filter=~Q(state=RequestState.PENDING)),
        answered=Count("pk", filter=is_settled),
        to_deliver=Count("pk", filter=is_out),
        delivered=Count("pk", filter=Q(delivered_at__isnull=False)),
        failed=Count("pk", filter=is_settled & ~Q(error_code="")),
        delivery_failed=Count("pk", filter=Q(dead_at__isnull=False)),
    )
    return Progress(**counted)
