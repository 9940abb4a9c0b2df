"""Message batches: create, retrieve, list, cancel, delete, results.

Decides what is stored of a new batch; its requests are read from the spooled file later, by `clientbatch`. Where
results go is said in the field ``delivery_config`` of the batch or of a request; when nothing is said, they are
pulled.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone

from batching import audit, clientbatch, clientfiles, clientprogress, messageresults
from batching.api import pace, reading
from batching.api.anthropic.door import BETA, Problem
from batching.api.anthropic.shapes import (
    DeletedBatch,
    MessageBatch,
    MessageBatches,
    archived_at,
    batch_id,
    batch_key,
    message_batch,
)
from batching.api.anthropic.taking import ENDPOINT, MAX_BODY_BYTES, Taken, take
from batching.api.auth import Caller
from batching.api.intake_views import refuse_in_maintenance
from batching.api.openai.ranges import joined
from batching.api.operations import Answer, Parameter, operation, render
from batching.api.paging import limit_of
from batching.models import ClientFile, Submission
from batching.models.keys import new_file_key
from batching.models.projects import Scope
from batching.steering import Refused

WINDOW: Final = timedelta(hours=24)
_SPOOL_KEPT: Final = timedelta(days=30)
_DEFAULT, _MOST = 20, 1_000
_JSONL: Final = "application/x-jsonl"
_LIMIT: Final = Parameter(name="limit", about="Batches on a page.", schema={"type": "integer"})
_AFTER: Final = Parameter(name="after_id", about="The page behind this batch: older ones.")
_BEFORE: Final = Parameter(name="before_id", about="The page before this batch: newer ones.")


@operation(
    scope=Scope.SUBMIT,
    query=(BETA,),
    answers={200: Answer("The batch; its requests are stored next.", MessageBatch)},
    fails=(400, 413, 503),
)
def post_batch(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Create a batch of requests.

    With one wrong request nothing is taken. Answered when all requests are safe on disk.
    """
    refuse_in_maintenance()
    pace.require_lines(caller.key)
    key = new_file_key()
    with clientfiles.incoming(key) as spool:
        taken = take(caller, reading.pieces(request, at_most=MAX_BODY_BYTES), spool.write)
    pace.charge_lines(caller.key, taken.requests)
    file = ClientFile(key=key, size_bytes=spool.size_bytes, sha256=spool.sha256)
    return _shown(request, _store(caller, taken, file, timezone.now()))


def _store(caller: Caller, taken: Taken, file: ClientFile, now: datetime) -> Submission:
    """Make the rows of a batch whose requests are in a file."""
    file.project, file.purpose, file.filename = caller.project, ClientFile.SPOOLED, file.key
    file.created_at, file.expires_at = now, now + _SPOOL_KEPT
    with transaction.atomic():
        file.save(force_insert=True)
        return Submission.objects.create(
            project=caller.project,
            api_key=caller.key,
            kind=Submission.Kind.ANTHROPIC,
            created_at=now,
            endpoint=ENDPOINT,
            input_file=file,
            completion_window="24h",
            accepted=taken.requests,
            delivery_config=taken.delivery_config,
            expires_at=now + WINDOW,
            next_attempt_at=now,
        )


@operation(
    scope=Scope.READ,
    query=(BETA,),
    answers={200: Answer("The batch.", MessageBatch)},
    fails=(404,),
)
def show_batch(request: HttpRequest, caller: Caller, message_batch_id: str) -> HttpResponse:
    """Retrieve a batch: how far it is, and where its results are once it has ended."""
    return _shown(request, _find(caller, message_batch_id))


@operation(
    scope=Scope.READ,
    query=(BETA, _LIMIT, _AFTER, _BEFORE),
    answers={200: Answer("A page of batches, newest first.", MessageBatches)},
    fails=(400, 404),
)
def list_batches(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your batches, newest first."""
    limit = limit_of(request, default=_DEFAULT, most=_MOST)
    after, before = request.GET.get("after_id"), request.GET.get("before_id")
    if after and before:
        raise Problem(400, "before_id: give either after_id or before_id")
    rows = Submission.objects.client_batches(caller.project, Submission.Kind.ANTHROPIC)
    if after:
        rows = rows.filter(pk__lt=_find(caller, after).pk)
    if before:
        rows = rows.filter(pk__gt=_find(caller, before).pk)
    found = list(rows.order_by("pk" if before else "-pk")[: limit + 1])
    page = found[:limit][::-1] if before else found[:limit]
    shown = _objects(request, page)
    listed = MessageBatches(
        data=shown,
        has_more=len(found) > limit,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
    )
    return render(msgspec.json.encode(listed))


@operation(
    scope=Scope.OPERATE,
    query=(BETA,),
    answers={200: Answer("The batch.", MessageBatch)},
    fails=(400, 404),
)
def cancel_batch(request: HttpRequest, caller: Caller, message_batch_id: str) -> HttpResponse:
    """Stop a batch: what is not sent never is; answers that are there, or still come, are kept."""
    row = _find(caller, message_batch_id)
    try:
        with transaction.atomic():
            clientbatch.cancel(row, timezone.now())
            audit.record("submission.cancel", by=caller.actor, row=row)
            if row.is_final:
                raise Refused("invalid_state", "it has ended")
    except Refused as refused:
        message = f"Batch {batch_id(row)} cannot be canceled: it has ended."
        raise Problem(400, message) from refused
    return _shown(request, row)


@operation(
    scope=Scope.OPERATE,
    query=(BETA,),
    answers={200: Answer("It is gone.", DeletedBatch)},
    fails=(400, 404),
)
def delete_batch(request: HttpRequest, caller: Caller, message_batch_id: str) -> HttpResponse:
    """Delete a batch that has ended. What it sent and what came back stays under /api."""
    row = _find(caller, message_batch_id)
    if not row.is_final:
        message = (
            f"Batch {batch_id(row)} cannot be deleted while it is processing; cancel it first."
        )
        raise Problem(400, message)
    with transaction.atomic():
        audit.record("submission.delete", by=caller.actor, row=row)
        clientbatch.delete(row, timezone.now())
    return render(msgspec.json.encode(DeletedBatch(id=batch_id(row))))


@operation(
    scope=Scope.READ,
    query=(BETA,),
    answers={200: Answer("A line for each request.", media_type=_JSONL)},
    fails=(404,),
)
def show_results(request: HttpRequest, caller: Caller, message_batch_id: str) -> HttpResponseBase:
    """Stream the results of a batch that has ended, in the order of its requests."""
    row = _find(caller, message_batch_id)
    if not row.is_final or archived_at(row, timezone.now()):
        raise Problem(404, f"Batch {batch_id(row)} has no available results.")
    return StreamingHttpResponse(joined(messageresults.lines(row)), content_type=_JSONL)


def _find(caller: Caller, message_batch_id: str) -> Submission:
    rows = Submission.objects.client_batches(caller.project, Submission.Kind.ANTHROPIC)
    row = rows.select_related("input_file").filter(key=batch_key(message_batch_id)).first()
    if row is None:
        raise Problem(404, f"Message batch {message_batch_id[:100]} not found.")
    return row


def _shown(request: HttpRequest, row: Submission) -> HttpResponse:
    (shown,) = _objects(request, [row])
    return render(msgspec.json.encode(shown))


def _objects(request: HttpRequest, rows: list[Submission]) -> list[MessageBatch]:
    now = timezone.now()
    counts = clientprogress.counts([row for row in rows if row.is_final])
    return [
        message_batch(row, counts.get(row.pk, clientprogress.Counts()), _url(request, row), now)
        for row in rows
    ]


def _url(request: HttpRequest, row: Submission) -> str:
    """Return where its results are, as clients reach us: by the public URL, else as this call came."""
    path = reverse("message-batch-results", args=[batch_id(row)])
    if base := settings.BATCHER_PUBLIC_URL:
        return f"{base.rstrip('/')}{path}"
    return request.build_absolute_uri(path)
