"""Subscriptions to events: which destination is told when a batch or a submission of the project ends.

One subscription for each destination. What an event holds and how it is sent is `delivery`'s; who may send to
which place is the key's permit, as for requests.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, get_args

import msgspec
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Meta, Struct

from batching import audit
from batching.addressing import Unknown, destination_of
from batching.api import bodies
from batching.api.auth import Caller
from batching.api.errors import ApiError, Source, not_found
from batching.api.operations import Answer, Body, operation, render
from batching.api.paging import CURSOR, LIMIT, newest_first
from batching.models import Destination
from batching.models.projects import Scope
from batching.permits import Permit
from batching.wire import (
    VALIDATION_ERROR,
    Delivery,
    Invalid,
    ToDestination,
    ToRabbitmq,
    ToWebhook,
    delivery_of,
)
from delivery import destinations
from delivery.event_models import EventSubscription

_Type = Literal[
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled", "submission.completed"
]
_MAX_BODY_BYTES: Final = 64 * 1024
_RULES: Final = {
    "": "must be a JSON object",
    "/types": f"must be a list of one or more of {', '.join(get_args(_Type))}",
    "/delivery_config/type": "must be webhook, rabbitmq or destination",
}


class NewSubscription(Struct, forbid_unknown_fields=True, frozen=True):
    """What a destination is to be told of."""

    types: Annotated[list[_Type], Meta(min_length=1, max_length=20, description=_RULES["/types"])]
    delivery_config: ToWebhook | ToRabbitmq | ToDestination


class Subscription(Struct, frozen=True):
    """What a destination is told of."""

    id: str
    types: list[str]
    destination: str
    """Its id: `POST /api/destinations/{id}/rotate-secret` shows a secret to verify its messages with."""
    delivery_config: dict[str, str]
    created_at: datetime


class SubscriptionPage(Struct, frozen=True):
    """A page of subscriptions."""

    data: list[Subscription]
    next_cursor: str | None


@operation(
    scope=Scope.READ,
    query=(CURSOR, LIMIT),
    answers={200: Answer("A page, newest first.", SubscriptionPage)},
    fails=(400,),
)
def list_subscriptions(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List who is told of the events of your batches and submissions."""
    page, cursor = newest_first(_mine(caller), request)
    shown = SubscriptionPage(data=[_shown(row) for row in page], next_cursor=cursor)
    return render(msgspec.json.encode(shown))


@operation(
    scope=Scope.DESTINATIONS,
    body=Body(
        type=NewSubscription,
        example='{"types": ["batch.completed", "batch.failed"], "delivery_config":'
        ' {"type": "webhook", "webhook_url": "https://example.com/events"}}',
    ),
    answers={
        200: Answer("It was told of other types before.", Subscription),
        201: Answer("It is told from now on.", Subscription),
    },
    fails=(400, 413, 415, 422),
)
def subscribe(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Let a destination be told of events; the same destination again: of these types instead.

    A destination is made on first use, or named. It is told what happens from now on, and of submissions that
    are under way.
    """
    sent = bodies.read(request, NewSubscription, _RULES, at_most=_MAX_BODY_BYTES)
    delivery = delivery_of(sent.delivery_config)
    with transaction.atomic():
        place = _place(caller, delivery)
        row, is_new = EventSubscription.objects.update_or_create(
            destination=place,
            defaults={"types": sorted(set(sent.types))},
            create_defaults={"types": sorted(set(sent.types)), "created_at": timezone.now()},
        )
        verb = "add" if is_new else "change"
        audit.record(f"eventsubscription.{verb}", by=caller.actor, row=row, after=audit.facts(row))
    return render(msgspec.json.encode(_shown(row)), 201 if is_new else 200)


@operation(
    scope=Scope.DESTINATIONS,
    answers={204: Answer("It is gone.", media_type="")},
    fails=(404,),
)
def unsubscribe(request: HttpRequest, caller: Caller, subscription_id: str) -> HttpResponse:
    """Tell a destination of no further events. Those on their way are delivered."""
    row = _mine(caller).filter(key=subscription_id).first() if "\0" not in subscription_id else None
    if row is None:
        raise not_found("subscription")
    with transaction.atomic():
        audit.record("eventsubscription.delete", by=caller.actor, row=row, before=audit.facts(row))
        row.delete()
    return HttpResponse(status=204)


def _mine(caller: Caller) -> QuerySet[EventSubscription]:
    rows = EventSubscription.objects.filter(destination__project=caller.project)
    return rows.filter(destination__deleted_at__isnull=True).select_related("destination")


def _place(caller: Caller, delivery: Delivery) -> Destination:
    """Return the destination, made on first use. Raises ApiError or Invalid."""
    try:
        Permit(caller.key).check_place(delivery)
        place = destination_of(caller.project, delivery)
    except Unknown as problem:
        source = Source(pointer=problem.pointer)
        raise ApiError(problem.code, problem.detail, source=source) from problem
    for wrong in destinations.problems_with(place):
        detail = f"{wrong.field or 'the destination'} {wrong.detail}"
        raise Invalid(VALIDATION_ERROR, detail, "/delivery_config")
    return place


def _shown(row: EventSubscription) -> Subscription:
    return Subscription(
        id=row.key,
        types=row.types,
        destination=row.destination.key,
        delivery_config=row.destination.config,
        created_at=row.created_at,
    )
