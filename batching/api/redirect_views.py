"""One request's result sent elsewhere: what a client may ask, and the answer."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Meta, Struct

from batching import audit, wire
from batching.addressing import Unknown
from batching.api import bodies
from batching.api.auth import Caller
from batching.api.errors import ApiError, Source
from batching.api.operations import Answer, Body, operation, render
from batching.api.request_views import find
from batching.api.shapes import RequestMoved
from batching.models.projects import Scope
from batching.permits import Permit
from batching.wire import Delivery, DeliveryConfig
from delivery import redirecting

MAX_BODY_BYTES: Final = 64 * 1024


class Redirection(Struct, forbid_unknown_fields=True, frozen=True):
    """Where a request's result shall go from now on."""

    delivery_config: Annotated[DeliveryConfig, Meta(description=wire.RULES["/delivery_config"])]


@operation(
    scope=Scope.OPERATE,
    body=Body(
        type=Redirection,
        example='{"delivery_config": {"type": "destination", "name": "crm"}}',
    ),
    answers={200: Answer("Its result goes there from now on.", RequestMoved)},
    fails=(400, 404, 413, 415, 422),
)
def redirect_request(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponse:
    """Give a request another destination, in any state but while its result is being sent.

    What waits to be delivered is due there at once, under the same message id. What was delivered or given up
    stays so until it is redelivered.
    """
    row = find(caller, custom_id)
    sent = bodies.read(request, Redirection, {}, at_most=MAX_BODY_BYTES)
    to = wire.delivery_of(sent.delivery_config)
    permit(caller, to)
    reason, was = "asked for by its client", redirecting.told(row)
    with transaction.atomic():
        row = redirecting.redirect_request(
            row, to=to, by=caller.actor, reason=reason, now=timezone.now()
        )
        now_is = redirecting.told(row)
        audit.record("request.redirect", by=caller.actor, row=row, before=was, after=now_is)
    said = "Destination changed"
    moved = RequestMoved(id=row.key, custom_id=row.custom_id, state=row.state, message=said)
    return render(msgspec.json.encode(moved))


def permit(caller: Caller, *places: Delivery) -> None:
    """Raise ApiError 403 unless the caller's key may send to one of these, names of the same place."""
    try:
        Permit(caller.key).check_place(*places)
    except Unknown as problem:
        source = Source(pointer=problem.pointer)
        raise ApiError(problem.code, problem.detail, source=source) from problem
