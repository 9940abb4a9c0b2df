"""Files of clients: upload, list, retrieve, content, delete.

Decides how long a file is kept and how its content is sent: an uploaded one from the disk, the output of a
batch straight from its answers, both in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone

from batching import clientfiles, resultfile
from batching.api.auth import Caller
from batching.api.openai import ranges
from batching.api.openai.door import Problem, listed, missing, wrong_value
from batching.api.openai.forms import MAX_UPLOAD_BYTES, read_form
from batching.api.openai.shapes import Deleted, FileObject, file_object
from batching.api.operations import Answer, Parameter, operation, render
from batching.api.paging import limit_of
from batching.models import ClientFile
from batching.models.keys import new_file_key
from batching.models.projects import Scope

PURPOSES: Final = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
SHORTEST_S, LONGEST_S = 3_600, 30 * 24 * 3_600
_BATCH_KEPT: Final = timedelta(seconds=LONGEST_S)
_MOST: Final = 10_000
_EXPIRY: Final = ("expires_after[{}]", "expires_after.{}")

AFTER: Final = Parameter(name="after", about="The id of the last object of the page before.")
LIMIT: Final = Parameter(name="limit", about="Objects on a page.", schema={"type": "integer"})


@operation(scope=Scope.SUBMIT, answers={200: Answer("The file.", FileObject)}, fails=(400, 413))
def post_file(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Upload a file, as multipart/form-data with `purpose` and `file`."""
    now, key = timezone.now(), new_file_key()
    with clientfiles.incoming(key) as came:
        form = read_form(request, "file", came.write, at_most=MAX_UPLOAD_BYTES)
        if form.filename is None:
            raise missing("file")
        purpose = checked_purpose(form.fields.get("purpose"))
        kept_s = _kept_s(form.fields)
    row = ClientFile.objects.create(
        key=key,
        project=caller.project,
        purpose=purpose,
        filename=form.filename,
        size_bytes=came.size_bytes,
        sha256=came.sha256,
        created_at=now,
        expires_at=expiry(purpose, kept_s, now),
    )
    return render(msgspec.json.encode(file_object(row)))


def checked_purpose(given: str | None) -> str:
    """Return what a file is for. Raises Problem."""
    if not given:
        raise missing("purpose")
    if given not in PURPOSES:
        raise wrong_value("purpose", f"it must be one of {', '.join(PURPOSES)}")
    return given


def checked_kept_s(anchor: str | None, seconds: int | None, param: str) -> int:
    """Return how long a file is to be kept. Raises Problem."""
    if anchor != "created_at":
        raise wrong_value(f"{param}.anchor", "it must be 'created_at'")
    if seconds is None or not SHORTEST_S <= seconds <= LONGEST_S:
        raise wrong_value(f"{param}.seconds", f"it must be from {SHORTEST_S} to {LONGEST_S}")
    return seconds


def expiry(purpose: str, kept_s: int | None, now: datetime) -> datetime | None:
    """Return when a file goes: as asked, else a batch's after 30 days and any other never."""
    if kept_s is not None:
        return now + timedelta(seconds=kept_s)
    return now + _BATCH_KEPT if purpose == "batch" else None


def _kept_s(fields: Mapping[str, str]) -> int | None:
    """Read the expiry, which forms write in brackets or with a dot."""
    anchor, seconds = (
        next((fields[f] for form in _EXPIRY if (f := form.format(name)) in fields), None)
        for name in ("anchor", "seconds")
    )
    if anchor is None and seconds is None:
        return None
    is_number = seconds is not None and seconds.isascii() and seconds.isdecimal()
    number = int(seconds) if is_number and seconds and len(seconds) < 10 else None
    return checked_kept_s(anchor, number, "expires_after")


@operation(
    scope=Scope.READ,
    query=(
        Parameter(name="purpose", about="Only files for this."),
        Parameter(name="order", about="By time of creation: asc or desc."),
        AFTER,
        LIMIT,
    ),
    answers={200: Answer("A page of files.")},
    fails=(400,),
)
def list_files(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List your files, newest first unless asked otherwise."""
    limit = limit_of(request, default=_MOST, most=_MOST)
    order = request.GET.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_value("order", "it must be asc or desc")
    rows = ClientFile.objects.of_client(caller.project, timezone.now())
    if purpose := request.GET.get("purpose", "").replace("\0", ""):
        rows = rows.filter(purpose=purpose)
    if after := request.GET.get("after"):
        place = _find(caller, after).pk
        rows = rows.filter(pk__gt=place) if order == "asc" else rows.filter(pk__lt=place)
    page = list(rows.order_by("pk" if order == "asc" else "-pk")[: limit + 1])
    return listed([file_object(row) for row in page[:limit]], has_more=len(page) > limit)


@operation(scope=Scope.READ, answers={200: Answer("The file.", FileObject)}, fails=(404,))
def show_file(request: HttpRequest, caller: Caller, file_id: str) -> HttpResponse:
    """Retrieve what is known of a file."""
    return render(msgspec.json.encode(file_object(_find(caller, file_id))))


@operation(scope=Scope.SUBMIT, answers={200: Answer("It is gone.", Deleted)}, fails=(400, 404))
def delete_file(request: HttpRequest, caller: Caller, file_id: str) -> HttpResponse:
    """Delete a file. What was read from it stays."""
    row = _find(caller, file_id)
    if row.size_bytes is None:
        raise Problem(400, "The batch that writes this file still runs.", param="id")
    clientfiles.delete(row, timezone.now())
    return render(msgspec.json.encode(Deleted(id=row.key)))


@operation(
    scope=Scope.READ,
    answers={200: Answer("The bytes.", media_type="application/octet-stream")},
    fails=(404,),
)
def show_content(request: HttpRequest, caller: Caller, file_id: str) -> HttpResponseBase:
    """Download a file, or the part of it that `Range` names.

    The output of a batch that still runs can be read as far as it goes; its end moves, so a range is
    honoured once the batch has ended.
    """
    row = _find(caller, file_id)
    size, part = row.size_bytes, None
    if size is not None and (header := request.headers.get("Range", "")):
        try:
            part = ranges.asked(header, size)
        except ValueError:
            return ranges.outside(size)
    start, end = part or (0, size or 0)
    if row.submission_id is None:
        body: Iterator[bytes] = clientfiles.Outgoing(_path(row), start, end)
    else:
        lines = ranges.joined(resultfile.lines(row.submission_id, row.side))
        body = ranges.cut(lines, start, end) if size is not None else lines
    return ranges.content(body, filename=row.filename, size=size, part=part)


def _path(row: ClientFile) -> Path:
    path = clientfiles.path_of(row.key)
    if not path.exists():
        raise _no_such(row.key)
    return path


def _find(caller: Caller, file_id: str) -> ClientFile:
    """Return the caller's file. Raises Problem 404."""
    rows = ClientFile.objects.of_client(caller.project, timezone.now())
    row = rows.filter(key=file_id).first() if "\0" not in file_id else None
    if row is None:
        raise _no_such(file_id)
    return row


def _no_such(file_id: str) -> Problem:
    return Problem(404, f"No such File object: {file_id[:100]}", param="id")
