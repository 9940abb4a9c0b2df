"""Replays: results sent again in the background, ordered by a filter, watched and stopped.

Decides what a key may order: what its project sent, and what was delivered already only when it says so twice.
`delivery.replays` carries it out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Meta, Struct

from batching import audit
from batching.api import bodies
from batching.api.auth import Caller
from batching.api.errors import not_found
from batching.api.operations import Answer, Body, Parameter, operation, render, wrong_parameter
from batching.api.paging import CURSOR, LIMIT, newest_first
from batching.models.projects import Scope
from batching.wire import VALIDATION_ERROR, Invalid
from delivery import replays
from delivery.models import Replay
from delivery.replays import FASTEST, SLOWEST, USUAL_PER_SECOND, Unknown, Which

_MAX_BODY_BYTES: Final = 64 * 1024
_STATES: Final = list(Replay.State.values)
_RULES: Final = {
    "": "must be a JSON object",
    "/filter": "must be an object of one or more of state, batch, submission, destination, model, custom_id, q, from, to",
    "/filter/state": "must be processed, delivered, delivery_failed, failed, expired or cancelled",
    "/filter/from": "must be a time with its offset, such as 2026-03-01T00:00:00Z",
    "/filter/to": "must be a time with its offset, such as 2026-03-01T00:00:00Z",
    "/only_failed": "must be true or false; false: what was delivered is delivered again too",
    "/include_delivered": "must be true when only_failed is false: every receiver will get the same results again",
    "/per_second": f"must be a number from {SLOWEST:g} to {FASTEST:g}",
    "/reason": "must be a string of 1 to 200 characters without control characters",
}


class NewReplay(Struct, forbid_unknown_fields=True, frozen=True):
    """Which results are to be sent again, and how fast."""

    filter: Annotated[
        Which, Meta(description="Those that all members fit; empty: all of the project.")
    ]
    reason: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            pattern=r"^(?![\s\S]*[\x00-\x1f\x7f-\x9f])",
            description=_RULES["/reason"],
        ),
    ]
    only_failed: Annotated[bool, Meta(description=_RULES["/only_failed"])] = True
    include_delivered: Annotated[bool, Meta(description=_RULES["/include_delivered"])] = False
    per_second: Annotated[
        float,
        Meta(
            description=_RULES["/per_second"],
            extra_json_schema={"minimum": SLOWEST, "maximum": FASTEST},
        ),
    ] = USUAL_PER_SECOND


class ReplayShown(Struct, frozen=True):
    """A replay and how far it is."""

    id: str
    state: str
    """`running`, `done`, `stopped` or `failed`."""
    filter: dict[str, str]
    only_failed: bool
    per_second: float
    reason: str
    by: str
    """Who ordered it."""
    matched: int | None
    """Results that are meant; null while they are counted."""
    done: int
    """Of them, made due again."""
    skipped: int
    """Of them, not to be sent again when their turn came."""
    error: str
    """Why it failed, or why its last step is tried again."""
    created_at: datetime
    ended_at: datetime | None


class ReplayPage(Struct, frozen=True):
    """A page of replays."""

    data: list[ReplayShown]
    next_cursor: str | None


@operation(
    scope=Scope.OPERATE,
    body=Body(
        type=NewReplay,
        example='{"filter": {"destination": "crm", "from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"},'
        ' "reason": "the receiver was down", "per_second": 100}',
    ),
    answers={202: Answer("It begins within seconds.", ReplayShown)},
    fails=(400, 413, 415, 422),
)
def start_replay(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Send results again in the background, each under its own message id.

    Those whose delivery was given up; with `only_failed` false and `include_delivered` true what was delivered
    too. `from` and `to` bound when a result was settled or given up. What ends after this call is not meant.
    """
    sent = bodies.read(request, NewReplay, _RULES, at_most=_MAX_BODY_BYTES)
    _confirm(sent)
    now = timezone.now()
    with transaction.atomic():
        try:
            row = replays.start(sent.filter, project=caller.project, only_failed=sent.only_failed,
                                per_second=sent.per_second, by=caller.actor, reason=sent.reason, now=now)  # fmt: skip
        except Unknown as problem:
            pointer = f"/filter/{problem.member}"
            raise Invalid(VALIDATION_ERROR, problem.detail, pointer) from problem
        audit.record("replay.start", by=caller.actor, row=row, reason=sent.reason,
                     after=replays.facts_of(row))  # fmt: skip
    return render(msgspec.json.encode(_shown(row)), 202)


def _confirm(sent: NewReplay) -> None:
    """Raise Invalid unless what a schema can't say is right."""
    if not SLOWEST <= sent.per_second <= FASTEST:
        raise Invalid(VALIDATION_ERROR, f"per_second {_RULES['/per_second']}", "/per_second")
    if sent.only_failed == sent.include_delivered:
        rule = _RULES["/include_delivered"]
        if sent.only_failed:
            rule = "must be false while only_failed is true"
        raise Invalid(VALIDATION_ERROR, f"include_delivered {rule}", "/include_delivered")


@operation(
    scope=Scope.OPERATE,
    query=(
        Parameter(name="state", about="Only these.", schema={"type": "string", "enum": _STATES}),
        CURSOR,
        LIMIT,
    ),
    answers={200: Answer("A page, newest first.", ReplayPage)},
    fails=(400,),
)
def list_replays(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your project's replays a page at a time."""
    rows = Replay.objects.filter(project=caller.project)
    if (state := request.GET.get("state")) is not None:
        if state not in _STATES:
            raise wrong_parameter("state", f"must be one of {', '.join(_STATES)}")
        rows = rows.filter(state=state)
    page, cursor = newest_first(rows, request)
    shown = ReplayPage(data=[_shown(row) for row in page], next_cursor=cursor)
    return render(msgspec.json.encode(shown))


@operation(
    scope=Scope.OPERATE,
    answers={200: Answer("The replay and how far it is.", ReplayShown)},
    fails=(404,),
)
def show_replay(request: HttpRequest, caller: Caller, replay_id: str) -> HttpResponse:
    """Show one replay and how far it is."""
    return render(msgspec.json.encode(_shown(_find(caller, replay_id))))


@operation(
    scope=Scope.OPERATE,
    answers={202: Answer("Nothing more is sent again.", ReplayShown)},
    fails=(404, 422),
)
def stop_replay(request: HttpRequest, caller: Caller, replay_id: str) -> HttpResponse:
    """Stop a replay where it is; results that it made due already are still delivered."""
    row = _find(caller, replay_id)
    row = audit.done(replays.stop, row, action="replay.stop", by=caller.actor,
                     reason="stop asked for", now=timezone.now())  # fmt: skip
    return render(msgspec.json.encode(_shown(row)), 202)


def _find(caller: Caller, replay_id: str) -> Replay:
    rows = Replay.objects.filter(project=caller.project, key=replay_id)
    row = rows.first() if "\0" not in replay_id else None
    if row is None:
        raise not_found("replay")
    return row


def _shown(row: Replay) -> ReplayShown:
    return ReplayShown(
        id=row.key,
        state=row.state,
        filter=row.filter,
        only_failed=row.only_failed,
        per_second=row.per_second,
        reason=row.reason,
        by=row.who if row.user_id is None else f"user {row.who}",
        matched=row.matched,
        done=row.done,
        skipped=row.skipped,
        error=row.error,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
