"""One request and many: looking at them, and doing something to one.

Decides who sees what: another project's request is not there at all. The deeds are `steering`'s and
`redelivery`'s; what they refuse is answered as they word it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone
from django_fsm_log.models import StateLog
from msgspec import Raw

from batching import answerline, audit, costs, steering
from batching.api import shapes
from batching.api.auth import Caller
from batching.api.errors import not_found
from batching.api.operations import (
    Answer,
    Parameter,
    View,
    operation,
    render,
    wrong_parameter,
)
from batching.api.paging import CURSOR, LIMIT, by_custom_id, newest_first
from batching.api.shapes import RequestDetail, RequestMoved, RequestPage
from batching.lifecycle import RequestState
from batching.models import Answer as AnswerRow
from batching.models import Lane, Request
from batching.models.projects import Scope
from delivery import redelivery, why

MAX_ATTEMPTS_SHOWN: Final = 100
MAX_TRANSITIONS_SHOWN: Final = 500

_STATE = Parameter(
    name="state", about="Only these.", schema={"type": "string", "enum": list(RequestState.values)}
)
_FILTERS: Final = {"batch": "batch__key", "submission": "submission__key", "model": "lane__in"}


@operation(
    scope=Scope.READ,
    query=(
        _STATE,
        Parameter(name="batch", about="Only those in this batch, by its id."),
        Parameter(name="submission", about="Only those of this submission, by its id."),
        Parameter(name="model", about="Only those for this model."),
        Parameter(
            name="q", about="Only those whose `custom_id` begins like this; sorted by `custom_id`."
        ),
        CURSOR,
        LIMIT,
    ),
    answers={200: Answer("A page, newest first.", RequestPage)},
    fails=(400,),
)
def list_requests(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your requests a page at a time."""
    rows = Request.objects.filter(project=caller.project, **_filters(request))
    rows = rows.select_related("lane__account", "batch", "submission").only(*_SHOWN)
    prefix = request.GET.get("q", "")
    if prefix:
        page, cursor = by_custom_id(rows, prefix, request)
    else:
        page, cursor = newest_first(rows, request)
    shown = RequestPage(data=[shapes.request_summary(row) for row in page], next_cursor=cursor)
    return render(msgspec.json.encode(shown))


_SHOWN: Final = (
    *("key", "project_id", "custom_id", "scope", "state", "priority", "attempt", "error_code"),
    *("error_message", "created_at", "state_changed_at", "deliver_by", "dead_at", "settled_at"),
    *("batch__key", "submission__key", "lane__model", "lane__endpoint", "lane__account__name"),
)


def _filters(request: HttpRequest) -> dict[str, Any]:
    given: dict[str, Any] = {
        field: request.GET[name] for name, field in _FILTERS.items() if request.GET.get(name)
    }
    if (state := request.GET.get("state")) is not None:
        if state not in RequestState.values:
            raise wrong_parameter("state", f"must be one of {', '.join(RequestState.values)}")
        given["state"] = state
    for name in (*_FILTERS, "q"):
        if "\0" in request.GET.get(name, ""):
            raise wrong_parameter(name, "must not hold NUL")
    if model := given.get("lane__in"):  # told apart: where no lane has it, no request is looked at
        given["lane__in"] = list(Lane.objects.filter(model=model).values_list("pk", flat=True))
    return given


@operation(
    scope=Scope.READ,
    answers={200: Answer("The request with its answer, attempts and history.", RequestDetail)},
    fails=(404,),
)
def show_request(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponse:
    """Show one request with all that happened to it.

    Found by your `custom_id`, or by our id (`req_…`). A line of a client's batch (`/v1/batches`) has a
    `custom_id` that other batches may use too: it is found by our id.
    """
    return render(msgspec.json.encode(_detail(find(caller, custom_id))))


def show_request_named(ending: str) -> View:
    """Return `show_request` for ids that end like the path of a deed (`a/cancel`)."""

    def show(request: HttpRequest, custom_id: str) -> HttpResponseBase:
        return show_request(request, custom_id=f"{custom_id}/{ending}")

    return show


def show_request_bulk(request: HttpRequest) -> HttpResponseBase:
    """Show the request whose id is the word that bulk uploads go to."""
    return show_request(request, custom_id="bulk")


def find(caller: Caller, name: str) -> Request:
    """Return the caller's request by its custom_id, or by our id. Raises ApiError 404."""
    mine = Request.objects.filter(project=caller.project).select_related(
        "project", "lane__account", "batch__lane", "submission", "destination"
    )
    mine = mine.defer(
        "lane__account__api_key", "lane__account__webhook_secret", "destination__secret",
        "batch__provider_object",
    )  # fmt: skip
    for named in _names(name):
        row = mine.filter(named).first()
        if row is not None:
            return row
    raise not_found("request")


def _names(name: str) -> list[models.Q]:
    if "\0" in name:
        return []
    by_ours = [models.Q(key=name)] if name.startswith("req_") else []
    return [models.Q(custom_id=name, scope=""), *by_ours]


def _detail(row: Request) -> RequestDetail:
    told = why.of_request(row, timezone.now())
    answer = AnswerRow.objects.filter(request=row, attempt=row.attempt).first()
    members = answerline.members(bytes(answer.line)) if answer else answerline.Members()
    attempts = row.delivery_attempts.order_by("-pk")[:MAX_ATTEMPTS_SHOWN]
    return RequestDetail(
        id=row.key,
        custom_id=row.custom_id,
        state=row.state,
        outcome=row.outcome,
        why=str(told),
        explanation=shapes.explanation(told),
        batch=row.batch.key if row.batch else None,
        submission=row.submission.key if row.submission else None,
        url=row.lane.endpoint,
        model=row.lane.model,
        account=row.lane.account.name,
        delivery_config=row.destination.config if row.destination else {"type": "none"},
        priority=row.priority,
        attempt=row.attempt,
        size_bytes=row.size_bytes,
        token_estimate=row.token_estimate,
        token_estimate_is_exact=row.is_token_exact,
        metadata=_metadata(row),
        answer=members.response,
        error=_error(row, members),
        usage=shapes.usage(answer) if answer else None,
        cost=costs.dollars(row.cost_nano),
        attempts=shapes.attempts(attempts),
        transitions=shapes.transitions(history(row)),
        created_at=row.created_at,
        state_changed_at=row.state_changed_at,
        deliver_by=row.deliver_by,
        deadline_policy=row.project.deadline_policy,
        settled_at=row.settled_at,
        next_delivery_at=row.due_at,
        delivered_at=row.delivered_at,
    )


def _metadata(row: Request) -> Raw:
    from batching.models import RequestBody

    metadata = RequestBody.objects.filter(request=row).values_list("metadata", flat=True).first()
    return Raw(bytes(metadata or b"{}"))


def _error(row: Request, members: answerline.Members) -> Raw:
    """Return the provider's error as it came; without one, what we noted."""
    if bytes(members.error) != b"null" or not row.error_code:
        return members.error
    return Raw(msgspec.json.encode({"code": row.error_code, "message": row.error_message}))


def history(row: models.Model) -> models.QuerySet[StateLog]:
    """Return the log of a row, oldest first, cut at what is shown."""
    kind = ContentType.objects.get_for_model(type(row))
    log: models.QuerySet[StateLog] = StateLog.objects.filter(content_type=kind, object_id=row.pk)
    return log.select_related("by").order_by("pk")[:MAX_TRANSITIONS_SHOWN]


Deed = Callable[..., Request]


def _deed(deed: Deed, caller: Caller, custom_id: str, *, asked: str, said: str) -> HttpResponse:
    row = find(caller, custom_id)
    action = f"request.{deed.__name__.removesuffix('_request')}"
    row = audit.done(deed, row, action=action, by=caller.actor, reason=asked, now=timezone.now())
    moved = RequestMoved(id=row.key, custom_id=row.custom_id, state=row.state, message=said)
    return render(msgspec.json.encode(moved), 202)


_MOVED: Final = {202: Answer("It is done, or under way.", RequestMoved)}


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409, 422))
def redeliver_request(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponse:
    """Deliver the result of a request once more, with the same message id."""
    return _deed(
        redelivery.redeliver_request,
        caller,
        custom_id,
        asked="redelivery asked for",
        said="Redelivery triggered",
    )


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409, 422))
def cancel_request(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponse:
    """Take a request back before it is sent to the provider."""
    return _deed(
        steering.cancel_request,
        caller,
        custom_id,
        asked="cancelled by its client",
        said="Request cancelled",
    )


@operation(scope=Scope.OPERATE, answers=_MOVED, fails=(404, 409, 422))
def retry_request(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponse:
    """Send a request that ended badly to the provider again."""
    return _deed(
        steering.retry_request,
        caller,
        custom_id,
        asked="retry asked for",
        said="Request will be sent again",
    )
