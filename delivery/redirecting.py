"""Giving one request another destination, whatever became of it so far.

The API and the admin call `redirect_request`. What is to be sent goes to the new place from the next try on, under
the same message id; what was delivered or given up stays so until someone redelivers it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F

from batching.addressing import Unknown, destination_of
from batching.lifecycle import BAD_ENDS, Actor, RequestState, arrow
from batching.models import Batch, Destination, Request
from batching.steering import Refused
from batching.wire import Delivery

logger = logging.getLogger(__name__)


def redirect_request(
    request: Request, *, to: Delivery, by: Actor, reason: str, now: datetime
) -> Request:
    """Let a request's result go elsewhere, or nowhere when its client shall pull it.

    A result that waits for a try, or never had a place to go to, is due at the new one at once with all its
    tries ahead. Refused while it is being sent, when it goes there already, and when ``to`` names nothing that
    its project has. A bad end is not seen to be under way: its client may be told at both places.
    """
    place = _place(request, to)
    with transaction.atomic():
        row = Request.objects.select_for_update(of=("self",)).get(pk=request.pk)
        if row.state == RequestState.DELIVERING:
            raise Refused("invalid_state", "its result is being sent right now; ask again")
        if row.destination_id == (place.pk if place else None):
            raise Refused("nothing_to_do", "its result goes there already")
        due = {"due_at": now if place else None, "tries": 0} if _is_to_be_sent(row) else {}
        # A try that is under way was made for the old place: its end no longer counts.
        changes: dict[str, Any] = {**due, "destination": place, "fence": F("fence") + 1}
        Request.objects.filter(pk=row.pk).update(**changes)
        closed = arrow(Batch, "redeliver").sources
        its_batch = Batch.objects.filter(requests=row, state__in=closed)
        Batch.objects.filter(pk__in=its_batch).update(next_attempt_at=now)
    facts = {"request": row.key, "destination": place.key if place else None, "by": by.name}
    logger.info("request redirected", extra=facts)
    request.refresh_from_db()
    return request


def told(request: Request) -> dict[str, str | None]:
    """Return a request's destination as the audit log tells it: by key, for a URL may hold secrets."""
    return {"destination": request.destination.key if request.destination else None}


def _place(request: Request, to: Delivery) -> Destination | None:
    if to.type == "none":
        return None
    try:
        return destination_of(request.project, to)
    except Unknown as problem:
        raise Refused(problem.code, problem.detail) from problem


def _is_to_be_sent(row: Request) -> bool:
    """Whether it has an end that was neither delivered nor given up yet."""
    has_ended = row.state in (RequestState.PROCESSED, *BAD_ENDS) and row.settled_at is not None
    return row.due_at is not None or (has_ended and not row.delivered_at and not row.dead_at)
