"""Putting dead letters aside: what was given up and nobody wants any more, with a reason, and back again.

A discarded result keeps its state (a state tells what became of it), its cause and its time. It is a dead letter no
more: no concern, no group, no replay of what failed means it. Redelivering it or taking it back ends that. The admin
calls these for one row and for sets; each leaves a line in the request's history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from batching.history import note_many
from batching.lifecycle import Actor
from batching.models import Request
from batching.steering import Refused


def discard(request: Request, *, by: Actor, reason: str, now: datetime) -> None:
    """Put one dead letter aside. Refused when it is none."""
    with transaction.atomic():
        if not discard_many([request.pk], by=by, reason=reason, now=now):
            raise Refused(
                "invalid_state", "only what was given up and waits for a person is discarded"
            )
    request.refresh_from_db()


def discard_many(ids: Sequence[int], *, by: Actor, reason: str, now: datetime) -> int:
    """Put those of these requests aside that are dead letters; return how many. Call inside atomic."""
    chosen = _locked(Request.objects.given_up().filter(pk__in=ids))
    note_many(chosen, "discard", reason=reason or "discarded", by=by, now=now)
    return chosen.update(discarded_at=now)


def take_back(request: Request, *, by: Actor, reason: str, now: datetime) -> None:
    """Let one that was discarded wait for a person again. Refused when it was not."""
    with transaction.atomic():
        if not take_back_many([request.pk], by=by, reason=reason, now=now):
            raise Refused("invalid_state", "it was not discarded")
    request.refresh_from_db()


def take_back_many(ids: Sequence[int], *, by: Actor, reason: str, now: datetime) -> int:
    """Let those of these requests wait again that were discarded; return how many. Call inside atomic."""
    chosen = _locked(Request.objects.filter(pk__in=ids, discarded_at__isnull=False))
    note_many(chosen, "take_back", reason=reason or "taken back", by=by, now=now)
    return chosen.update(discarded_at=None)


def _locked(rows: QuerySet[Request]) -> QuerySet[Request]:
    """Return just these rows, held: whoever redelivers one at this moment was first or comes after."""
    ids = list(rows.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    return Request.objects.filter(pk__in=ids)
