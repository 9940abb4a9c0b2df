"""Destinations: made, looked at, changed, stopped and tried by those whose key may.

Decides who may do what: a key that is bound to some places neither makes nor changes a destination that leads
elsewhere. The deeds are `delivery.destinations`'; each stands in the audit log with its change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from django.db import IntegrityError, models, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from batching import audit
from batching.api import bodies
from batching.api import destination_shapes as shapes
from batching.api.auth import Caller
from batching.api.destination_shapes import (
    DestinationChange,
    DestinationDetail,
    DestinationMade,
    DestinationPage,
    DestinationSummary,
    NewDestination,
    Pinged,
    Rotation,
    SecretShown,
    Why,
)
from batching.api.errors import Conflict, Error, Source, failure, not_found, title_of
from batching.api.operations import Answer, Body, Parameter, operation, render, wrong_parameter
from batching.api.paging import CURSOR, LIMIT, newest_first
from batching.api.redirect_views import permit
from batching.audit import Seen
from batching.models import Destination
from batching.models.projects import Scope
from batching.steering import Refused
from batching.wire import VALIDATION_ERROR, Delivery, delivery_of
from delivery import destinations, ping, standing
from delivery.destinations import Problem

_STATES: Final[Mapping[str, models.Q]] = {
    "open": models.Q(paused_at__isnull=True, disabled_at__isnull=True),
    "paused": models.Q(paused_at__isnull=False, disabled_at__isnull=True),
    "disabled": models.Q(disabled_at__isnull=False),
}
_POINTERS: Final = {
    "": "",
    "type": "/delivery_config/type",
    "url": "/delivery_config/webhook_url",
    "queue": "/delivery_config/rabbitmq_queue",
    "exchange": "/delivery_config/rabbitmq_exchange",
    "routing_key": "/delivery_config/rabbitmq_routing_key",
}
Sent = TypeVar("Sent")
_ANSWER_SHOWN: Final = 2_000
_HOOK: Final = '{"type": "webhook", "webhook_url": "https://example.com/results"}'


@operation(
    scope=Scope.READ,
    query=(
        Parameter(
            name="state", about="Only these.", schema={"type": "string", "enum": list(_STATES)}
        ),
        Parameter(name="name", about="Only the one of this name."),
        CURSOR,
        LIMIT,
    ),
    answers={200: Answer("A page, newest first.", DestinationPage)},
    fails=(400,),
)
def list_destinations(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List where your results go: named destinations, and those made on first use."""
    rows = Destination.objects.present().filter(project=caller.project)
    if (state := request.GET.get("state")) is not None:
        if state not in _STATES:
            raise wrong_parameter("state", f"must be one of {', '.join(_STATES)}")
        rows = rows.filter(_STATES[state])
    if name := request.GET.get("name"):
        if "\0" in name:
            raise wrong_parameter("name", "must not hold NUL")
        rows = rows.filter(name=name)
    page, cursor = newest_first(rows.defer("secret", "previous_secret", "headers"), request)
    data = [DestinationSummary(**shapes.summary_facts(row)) for row in page]
    return render(msgspec.json.encode(DestinationPage(data=data, next_cursor=cursor)))


@operation(
    scope=Scope.DESTINATIONS,
    body=Body(type=NewDestination, example=f'{{"name": "crm", "delivery_config": {_HOOK}}}'),
    answers={201: Answer("It is made; its secret is shown this once.", DestinationMade)},
    fails=(400, 413, 415, 422),
)
def make_destination(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Make a named destination; requests then name it in their `delivery_config`.

    The answer holds the secret that signs its webhooks, this once: it can't be read again, only rotated.
    """
    sent = _read(request, NewDestination)
    row = Destination(project=caller.project, name=sent.name)
    _lead(row, delivery_of(sent.delivery_config))
    destinations.write_headers(row, sent.headers)
    for field in _TERMS:
        setattr(row, field, getattr(sent, field))
    _permit(caller, row)
    if wrong := destinations.problems_with(row):
        return _told(wrong)
    secret = destinations.give_secret(row)
    with _saving():
        row.save()
        audit.record("destination.add", by=caller.actor, row=row, after=audit.facts(row))
    made = DestinationMade(
        **shapes.detail_facts(row, standing.of(row, now=timezone.now())), secret=secret
    )
    return _never_kept(render(msgspec.json.encode(made), 201))


_TERMS: Final = ("retry_delays_s", "fail_fast_on_4xx", *destinations.RANGES)


@operation(
    scope=Scope.READ,
    answers={200: Answer("The destination.", DestinationDetail)},
    fails=(404,),
)
def show_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Show a destination with its terms and how it fares: what waits, what was given up, last success."""
    return _shown(_find(caller, destination_id))


@operation(
    scope=Scope.DESTINATIONS,
    body=Body(type=DestinationChange, example='{"headers": {"X-Tenant": "7"}, "max_in_flight": 8}'),
    answers={200: Answer("It is changed.", DestinationDetail)},
    fails=(400, 404, 409, 413, 415, 422),
)
def change_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Change a destination: what is given replaces what was, from the next try on.

    Headers are merged by name; `null` takes one away. Its type stays.
    """
    sent = _read(request, DestinationChange)
    with _saving():
        row = _find(caller, destination_id, is_locked=True)
        _permit(caller, row)
        before = Seen.now(row)
        _change(row, sent)
        _permit(caller, row, by_name=not sent.delivery_config)
        if wrong := destinations.problems_with(row):
            return _told(wrong)
        row.save()
        was, now_is = audit.changes(before, Seen.now(row))
        audit.record("destination.change", by=caller.actor, row=row, before=was, after=now_is)
    return _shown(row)


def _change(row: Destination, sent: DestinationChange) -> None:
    given = msgspec.structs.asdict(sent)
    for field in ("name", *_TERMS):
        if given[field] is not msgspec.UNSET:
            setattr(row, field, given[field])
    if sent.delivery_config:
        _lead(row, delivery_of(sent.delivery_config))
    if sent.headers:
        named = {name.lower() for name in sent.headers}
        kept = {n: v for n, v in row.own_headers.items() if n.lower() not in named}
        new = {n: v for n, v in sent.headers.items() if v is not None}
        destinations.write_headers(row, {**kept, **new})


@operation(
    scope=Scope.DESTINATIONS,
    answers={204: Answer("It is gone.", media_type="")},
    fails=(404, 422),
)
def delete_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Delete a destination; its name and its place are free again.

    Refused with `destination_in_use` while results are to be delivered there. A request that names it and ends
    later is held: give it another destination.
    """
    _deed(caller, destination_id, destinations.delete, "asked for by its client")
    return HttpResponse(status=204)


@operation(
    scope=Scope.DESTINATIONS,
    body=Body(type=Rotation, example='{"overlap_hours": 24}'),
    answers={200: Answer("The new secret, shown this once.", SecretShown)},
    fails=(400, 404, 422),
)
def rotate_destination_secret(
    request: HttpRequest, caller: Caller, destination_id: str
) -> HttpResponse:
    """Give a webhook a new signing secret; until the overlap ends the old one signs as well.

    Both signatures stand in `webhook-signature`, the new one first. With an overlap of 0 the old one is gone at
    once. This is also how to learn the secret of a destination that was made on first use.
    """
    overlap = timedelta(hours=_read(request, Rotation).overlap_hours)

    def rotate(row: Destination, *, now: datetime, **_who: object) -> str:
        return destinations.rotate_secret(row, now=now, overlap=overlap)

    row, secret = _deed(caller, destination_id, rotate, "rotate_secret")
    shown = SecretShown(id=row.key, secret=secret, previous_secret_until=row.previous_secret_until)
    return _never_kept(render(msgspec.json.encode(shown)))


@operation(
    scope=Scope.OPERATE,
    body=Body(type=Why, example='{"reason": "the receiver moves"}'),
    answers={200: Answer("It is paused.", DestinationDetail)},
    fails=(400, 404, 422),
)
def pause_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Hold what is due at a destination until it is resumed; requests that name it are taken all the same."""
    reason = _read(request, Why).reason
    return _shown(_deed(caller, destination_id, destinations.pause, reason)[0])


@operation(
    scope=Scope.OPERATE,
    answers={200: Answer("It is no longer paused.", DestinationDetail)},
    fails=(404, 422),
)
def resume_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Send what a pause held, longest due first."""
    return _shown(_deed(caller, destination_id, destinations.resume, "resumed")[0])


@operation(
    scope=Scope.OPERATE,
    answers={200: Answer("It is no longer disabled.", DestinationDetail)},
    fails=(404, 422),
)
def enable_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Send to a destination again that was disabled: its receiver said 410, or took nothing for days."""
    return _shown(_deed(caller, destination_id, destinations.enable, "enabled")[0])


@operation(
    scope=Scope.OPERATE,
    answers={200: Answer("How it ended, good or bad.", Pinged)},
    fails=(404, 422),
)
def ping_destination(request: HttpRequest, caller: Caller, destination_id: str) -> HttpResponse:
    """Send a signed message of type `ping` now, paused or not, and tell what came of it.

    It goes the way that results go, address guard and deadline included; it is no attempt at any result.
    """
    row = _find(caller, destination_id)
    _permit(caller, row)
    outcome = ping.ping(row, now=timezone.now())
    audit.record("destination.ping", by=caller.actor, row=row, reason=str(outcome.code))
    told = Pinged(
        outcome=str(outcome.code),
        status=outcome.status,
        detail=outcome.detail,
        answer=outcome.answer.decode(errors="replace")[:_ANSWER_SHOWN],
        address=outcome.address,
        duration_s=round(outcome.duration_s, 3),
    )
    return render(msgspec.json.encode(told))


def _read(request: HttpRequest, type_: type[Sent]) -> Sent:
    return bodies.read(request, type_, shapes.RULES, at_most=shapes.MAX_BODY_BYTES)


def _find(caller: Caller, key: str, *, is_locked: bool = False) -> Destination:
    """Return the caller's destination by its id. Raises ApiError 404."""
    mine = Destination.objects.present().filter(project=caller.project)
    mine = mine.select_for_update() if is_locked else mine
    row = mine.filter(key=key).first() if "\0" not in key else None
    if row is None:
        raise not_found("destination")
    return row


def _deed(
    caller: Caller, key: str, deed: Callable[..., Any], reason: str
) -> tuple[Destination, Any]:
    row = _find(caller, key)
    _permit(caller, row)
    action = f"destination.{deed.__name__}"
    result = audit.done(
        deed, row, action=action, by=caller.actor, reason=reason, now=timezone.now()
    )
    row.refresh_from_db()
    return row, result


def _permit(caller: Caller, row: Destination, *, by_name: bool = True) -> None:
    """Raise ApiError 403 unless the key may send to this place, or to its name where that suffices."""
    place = Delivery(
        type="webhook" if row.type == Destination.Type.WEBHOOK else "rabbitmq",
        url=row.url,
        queue=row.queue,
        exchange=row.exchange,
        routing_key=row.routing_key,
    )
    is_named = by_name and not row._state.adding and row.name
    names = [Delivery(type="destination", name=row.name)] if is_named else []
    permit(caller, place, *names)


def _lead(row: Destination, delivery: Delivery) -> None:
    """Let a destination lead elsewhere. Raises Refused when that would change its type."""
    if not row._state.adding and row.type != delivery.type:
        raise Refused("type_is_fixed", f"it is a {row.type} destination; make another one")
    row.type, row.url, row.queue = delivery.type, delivery.url, delivery.queue
    row.exchange, row.routing_key = delivery.exchange, delivery.routing_key


@contextmanager
def _saving() -> Iterator[None]:
    """Open a transaction; another call that saved the same name or place meanwhile is 409."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as problem:
        detail = "someone made a destination of this name or place meanwhile"
        raise Conflict("changed_meanwhile", detail) from problem


def _told(wrong: list[Problem]) -> HttpResponse:
    errors = [
        Error(
            status="422",
            code=VALIDATION_ERROR,
            title=title_of(VALIDATION_ERROR),
            detail=f"{pointer.rpartition('/')[2]} {problem.detail}".strip(),
            source=Source(pointer=pointer),
        )
        for problem in wrong
        for pointer in [_POINTERS.get(problem.field, f"/{problem.field}")]
    ]
    return failure(422, errors)


def _shown(row: Destination) -> HttpResponse:
    detail = DestinationDetail(**shapes.detail_facts(row, standing.of(row, now=timezone.now())))
    return render(msgspec.json.encode(detail))


def _never_kept(answer: HttpResponse) -> HttpResponse:
    """Mark an answer that holds a secret: neither we nor anyone between may keep it."""
    answer["Cache-Control"] = "no-store"
    return answer
