"""Batches of clients: create, retrieve, list, cancel.

Decides what may be asked of a batch when it is created; its file is read later, by `clientbatch`. Where its
results go is said in ``metadata`` or in the field ``delivery_config``; when nothing is said, they are pulled.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Meta, Raw, Struct

from batching import clientbatch, clientfiles, clientprogress, wire
from batching.api import pace
from batching.api.auth import Caller
from batching.api.doors import checked_delivery
from batching.api.intake_views import refuse_in_maintenance
from batching.api.openai.door import Problem, listed, read_body, wrong_value
from batching.api.openai.file_views import AFTER, LIMIT, checked_kept_s
from batching.api.openai.shapes import BatchObject, batch_key, batch_object, status_of
from batching.api.openai.upload_views import ExpiresAfter
from batching.api.operations import Answer, Body, operation, render
from batching.api.paging import limit_of
from batching.models import ClientFile, Submission
from batching.models.projects import Scope
from batching.steering import Refused

WINDOW: Final = timedelta(hours=24)
_DEFAULT, _MOST = 20, 100
_WEBHOOK_KEY, _DESTINATION_KEY = "batcher_webhook_url", "batcher_destination"


class NewBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client's batch is made of."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: (
        Annotated[
            dict[
                Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^(?![\s\S]*\x00)")],
                Annotated[str, Meta(max_length=512, pattern=r"^(?![\s\S]*\x00)")],
            ],
            Meta(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = None
    delivery_config: Raw = Raw()
    """Where results go whose line names no place; ours, not OpenAI's."""


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=NewBatch, example="{}"),
    answers={200: Answer("The batch; its file is read next.", BatchObject)},
    fails=(400, 503),
)
def post_batch(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Create a batch of the requests in a file."""
    asked: NewBatch = read_body(request, NewBatch)
    if asked.endpoint not in wire.ENDPOINTS:
        raise wrong_value("endpoint", f"it must be one of {', '.join(wire.ENDPOINTS)}")
    if asked.completion_window != "24h":
        raise wrong_value("completion_window", "it must be '24h'")
    refuse_in_maintenance()
    pace.require_lines(caller.key)
    row = _made(caller, asked, timezone.now())
    if row.input_file and pace.limit_of(caller.key, pace.LINES):
        pace.charge_lines(caller.key, clientfiles.count_lines(row.input_file.key))
    row.save(force_insert=True)
    return _shown(row)


def _made(caller: Caller, asked: NewBatch, now: datetime) -> Submission:
    """Return the batch, not stored yet. Raises Problem, Invalid."""
    after = asked.output_expires_after
    return Submission(
        project=caller.project,
        api_key=caller.key,
        kind=Submission.Kind.OPENAI,
        created_at=now,
        endpoint=asked.endpoint,
        input_file=_input_file(caller, asked.input_file_id),
        completion_window=asked.completion_window,
        metadata=asked.metadata,
        output_expires_after_s=checked_kept_s(after.anchor, after.seconds, "output_expires_after")
        if after
        else None,
        delivery_config=checked_delivery(caller, _named_place(asked)),
        expires_at=now + WINDOW,
        next_attempt_at=now,
    )


def _input_file(caller: Caller, file_id: str) -> ClientFile:
    rows = ClientFile.objects.of_client(caller.project, timezone.now())
    row = rows.filter(key=file_id).first() if "\0" not in file_id else None
    if row is None:
        message = f"No such File object: {file_id[:100]}"
        raise Problem(400, message, param="input_file_id", code="invalid_request")
    if row.purpose != "batch":
        message = f"The file was uploaded for '{row.purpose}'; it must be for 'batch'."
        raise Problem(400, message, param="input_file_id", code="invalid_request")
    return row


def _named_place(asked: NewBatch) -> bytes:
    if config := bytes(asked.delivery_config):
        return config
    metadata = asked.metadata or {}
    if url := metadata.get(_WEBHOOK_KEY):
        return msgspec.json.encode({"type": "webhook", "webhook_url": url})
    if name := metadata.get(_DESTINATION_KEY):
        return msgspec.json.encode({"type": "destination", "name": name})
    return b""


@operation(scope=Scope.READ, answers={200: Answer("The batch.", BatchObject)}, fails=(404,))
def show_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Retrieve a batch: how far it is, and its files as soon as there is something in them."""
    return _shown(_find(caller, batch_id))


@operation(
    scope=Scope.READ,
    query=(AFTER, LIMIT),
    answers={200: Answer("A page of batches, newest first.")},
    fails=(400,),
)
def list_batches(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your batches, newest first."""
    limit = limit_of(request, default=_DEFAULT, most=_MOST)
    rows = Submission.objects.client_batches(caller.project, Submission.Kind.OPENAI).select_related(
        "input_file"
    )
    if after := request.GET.get("after"):
        rows = rows.filter(pk__lt=_find(caller, after).pk)
    page = list(rows.order_by("-pk")[: limit + 1])
    return listed(_objects(page[:limit]), has_more=len(page) > limit)


@operation(scope=Scope.OPERATE, answers={200: Answer("The batch.", BatchObject)}, fails=(400, 404))
def cancel_batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponse:
    """Stop a batch: what is not sent never is; answers that are there, or still come, are kept."""
    row = _find(caller, batch_id)
    try:
        clientbatch.cancel(row, timezone.now())
    except Refused as refused:
        status = status_of(row, clientprogress.counts([row])[row.pk])
        raise Problem(400, f"Cannot cancel a batch with status '{status}'.") from refused
    return _shown(row)


def _find(caller: Caller, batch_id: str) -> Submission:
    rows = Submission.objects.client_batches(caller.project, Submission.Kind.OPENAI).select_related(
        "input_file"
    )
    row = rows.filter(key=batch_key(batch_id)).first()
    if row is None:
        raise Problem(404, f"No batch found with id '{batch_id[:100]}'.")
    return row


def _shown(row: Submission) -> HttpResponse:
    (shown,) = _objects([row])
    return render(msgspec.json.encode(shown))


def _objects(rows: list[Submission]) -> list[BatchObject]:
    counts = clientprogress.counts(rows)
    files = clientprogress.files(rows, counts)
    return [batch_object(row, counts[row.pk], files.get(row.pk, {})) for row in rows]
