"""How requests come in over HTTP: one, or a stream of many.

Decides how an upload is read and what is answered for each line; `wire` decides whether a line is right,
`intake` whether it is taken. A 202 is said after the commit. Never holds an upload in memory.
"""

from __future__ import annotations

from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse

from batching import wire
from batching.api import pace, reading, together
from batching.api.auth import Caller
from batching.api.bulk import Upload, receive, receive_whole
from batching.api.errors import ApiError, Source, failure, not_found
from batching.api.memory import Memory
from batching.api.operations import (
    NDJSON,
    Answer,
    Body,
    Link,
    Parameter,
    flag,
    operation,
    render,
)
from batching.api.shapes import BulkTaken, Taken
from batching.intake import Rejected
from batching.models import Flag, Submission
from batching.models.projects import Scope

MAINTENANCE_RETRY_S: Final = 30
_EXAMPLE: Final = """{
  "custom_id": "invoice-17",
  "url": "/v1/responses",
  "method": "POST",
  "body": {"model": "gpt-4o-mini", "input": "Say hello in one word."},
  "delivery_config": {"type": "webhook", "webhook_url": "http://127.0.0.1:9000/results"},
  "max_wait_s": 0,
  "metadata": {"customer": "42"}
}"""
_LINES: Final = """\
{"custom_id": "a-1", "url": "/v1/responses", "method": "POST", "body": {"model": "gpt-4o-mini", "input": "One"}, "delivery_config": {"type": "none"}}
{"custom_id": "a-2", "url": "/v1/embeddings", "method": "POST", "body": {"model": "text-embedding-3-small", "input": ["Two", "Three"]}, "delivery_config": {"type": "none"}}
"""

_ON_FROM_REQUEST: Final = tuple(
    Link(to=name, values={"custom_id": "$response.body#/id"})
    for name in ("show_request", "cancel_request", "retry_request", "redeliver_request")
)
_ON_FROM_BULK: Final = (
    *(
        Link(to=name, values={"submission_id": "$response.body#/submission"})
        for name in ("show_submission", "submission_results")
    ),
    Link(to="post_bulk", values={"submission": "$response.body#/submission"}),
    Link(to="list_requests", values={"submission": "$response.body#/submission"}),
)

_maintenance: Memory[bool] = Memory(seconds=1)


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=wire.NewRequest, example=_EXAMPLE),
    answers={
        202: Answer("It is stored and will be sent.", Taken, links=_ON_FROM_REQUEST),
        200: Answer(
            "The same request was here before; this is the first one.",
            Taken,
            links=_ON_FROM_REQUEST,
        ),
    },
    fails=(400, 409, 413, 415, 422, 503),
)
def post_request(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Send one request.

    The same `custom_id` with the same `url` and `body` is the first request again; with another `url` or
    `body` it is refused as `duplicate_custom_id`. Answered after the request is stored for good.
    """
    line = wire.read_line(reading.read_body(request))
    refuse_in_maintenance()
    pace.spend_line(caller.key)
    answer = together.accept(caller, line)
    if isinstance(answer, Rejected):
        source = Source(pointer=answer.pointer)
        raise ApiError(answer.code, answer.detail, source=source)
    taken = Taken(id=answer.key, custom_id=answer.custom_id, state=answer.state)
    return render(msgspec.json.encode(taken), 202 if answer.is_new else 200)


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=wire.NewRequest, example=_LINES, media_type=NDJSON),
    query=(
        Parameter(
            name="atomic",
            about="true: all lines or none; with one wrong line nothing is stored and the answer is 422.",
            schema={"type": "boolean", "default": False},
        ),
        Parameter(
            name="submission",
            about="Id of a submission of yours that these lines belong to as well; else they make a new one.",
        ),
    ),
    answers={
        202: Answer(
            "Read to its end; `errors` has the lines not taken.", BulkTaken, links=_ON_FROM_BULK
        )
    },
    fails=(400, 404, 413, 415, 422, 503),
)
def post_bulk(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Send many requests as NDJSON, one a line.

    Streamed, so an upload may be far bigger than memory; gzip is welcome. Each line is what `POST
    /api/requests` takes. Lines are stored as they come: an upload that breaks off has stored what came
    before, and may be sent again whole, because a line sent twice is one request.
    """
    is_atomic = flag(request, "atomic")
    refuse_in_maintenance()
    pace.require_lines(caller.key)
    upload = Upload(caller, _to_continue(request, caller))
    came = reading.pieces(request, at_most=reading.MAX_UPLOAD_BYTES)
    if not is_atomic:
        receive(upload, came)
    else:
        receive_whole(upload, came)
        if upload.rejected:
            return failure(422, upload.problems(), left_out=upload.errors_left_out)
    return render(msgspec.json.encode(upload.result()), 202)


def _to_continue(request: HttpRequest, caller: Caller) -> Submission | None:
    """Return the submission that an upload adds to. Raises ApiError 404."""
    key = request.GET.get("submission")
    if key is None:
        return None
    uploads = Submission.objects.filter(project=caller.project, kind=Submission.Kind.UPLOAD)
    found = uploads.filter(key=key).first() if "\0" not in key else None
    if found is None:
        raise not_found("submission")
    return found


def refuse_in_maintenance() -> None:
    """Raise ApiError 503 while no requests are taken."""
    if _maintenance.get(Flag.MAINTENANCE, lambda: Flag.is_raised(Flag.MAINTENANCE)):
        detail = "no requests are taken for the time being; try again later"
        headers = {"Retry-After": str(MAINTENANCE_RETRY_S)}
        raise ApiError("maintenance_mode", detail, headers=headers)
