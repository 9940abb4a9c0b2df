"""What a person may do to very many requests at once: the deeds of ``steering``, a set in few statements.

Each takes ids, does it to those that may, and returns how many that were; the rest is left as it is. The panel's
runs call these inside a transaction; row by row the same would take an hour for a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Q

from batching import endings
from batching.lifecycle import BAD_ENDS, Actor, BatchState, RequestState
from batching.models import Batch, Request

_STILL_OURS = (BatchState.BUILDING, BatchState.UPLOADING)


def cancel_requests(ids: Sequence[int], *, by: Actor, reason: str, now: datetime) -> int:
    """Take requests back before they are sent; return how many were. Call inside atomic."""
    rows = Request.objects.filter(pk__in=ids, state=RequestState.PENDING)
    # Locked: an upload that is under way finds out before its file counts.
    batches = Batch.objects.select_for_update(of=("self",)).order_by("pk")
    held = batches.filter(pk__in=rows.values("batch"), state__in=_STILL_OURS)
    still_ours = Q(batch__isnull=True) | Q(batch__in=[batch.pk for batch in held])
    why = reason or "cancelled"
    chosen = rows.filter(still_ours)
    return endings.end(chosen, "cancel", code="cancelled", message=why, now=now, by=by)


def retry_requests(ids: Sequence[int], *, by: Actor, reason: str, now: datetime) -> int:
    """Send requests that ended badly again, as their next attempts; return how many were. Call inside atomic."""
    rows = Request.objects.filter(pk__in=ids, state__in=BAD_ENDS)
    return endings.requeue(rows, reason=reason or "retried", now=now, by=by)
