"""Files that come in parts: an upload is created, gets its parts in any order, and is completed.

Decides what an upload must fulfil to become a file: its parts in the order that the client names, their sum
as announced, its MD5 if one is sent. Parts live an hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from msgspec import Struct

from batching import clientfiles
from batching.api.auth import Caller
from batching.api.openai.door import Problem, missing, read_body, wrong_value
from batching.api.openai.file_views import checked_kept_s, checked_purpose, expiry
from batching.api.openai.forms import MAX_UPLOAD_BYTES, read_form
from batching.api.openai.shapes import PartObject, UploadObject, part_object, upload_object
from batching.api.operations import Answer, Body, operation, render
from batching.models import ClientFile, FileUpload, UploadPart
from batching.models.keys import new_file_key, new_part_key
from batching.models.projects import Scope

MAX_PART_BYTES: Final = 64 * 1024 * 1024
_LIFE: Final = timedelta(hours=1)
_MOST_PARTS: Final = 10_000


class ExpiresAfter(Struct, frozen=True):
    """How long a file is to be kept."""

    anchor: str
    seconds: int


class NewUpload(Struct, frozen=True):
    """A file that will come in parts."""

    bytes: int
    filename: str
    mime_type: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class Completion(Struct, frozen=True):
    """The parts in their order."""

    part_ids: list[str]
    md5: str | None = None


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=NewUpload, example="{}"),
    answers={200: Answer("The upload.", UploadObject)},
    fails=(400,),
)
def post_upload(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Announce a file that will come in parts."""
    now, asked = timezone.now(), read_body(request, NewUpload)
    if not 0 <= asked.bytes <= MAX_UPLOAD_BYTES:
        raise wrong_value("bytes", f"it must be from 0 to {MAX_UPLOAD_BYTES}")
    for name, longest in (("filename", 512), ("mime_type", 200)):
        value = getattr(asked, name)
        if not value or len(value) > longest or "\0" in value:
            raise wrong_value(name, f"it must be a string of 1 to {longest} characters")
    after = asked.expires_after
    row = FileUpload.objects.create(
        project=caller.project,
        purpose=checked_purpose(asked.purpose),
        filename=asked.filename,
        mime_type=asked.mime_type,
        size_bytes=asked.bytes,
        expires_after_s=checked_kept_s(after.anchor, after.seconds, "expires_after")
        if after
        else None,
        created_at=now,
        expires_at=now + _LIFE,
    )
    return _shown(row, now)


@operation(
    scope=Scope.SUBMIT, answers={200: Answer("The part.", PartObject)}, fails=(400, 404, 413)
)
def post_part(request: HttpRequest, caller: Caller, upload_id: str) -> HttpResponse:
    """Send one part, as multipart/form-data with `data`, at most 64 MB."""
    upload = _open(_find(caller, upload_id), timezone.now())
    if upload.parts.count() >= _MOST_PARTS:
        raise Problem(400, f"An upload has at most {_MOST_PARTS:,} parts.")
    key = new_part_key()
    with clientfiles.incoming(key) as came:
        form = read_form(request, "data", came.write, at_most=MAX_PART_BYTES)
        if form.filename is None:
            raise missing("data")
    part = UploadPart.objects.create(
        key=key, upload=upload, size_bytes=came.size_bytes, created_at=timezone.now()
    )
    return render(msgspec.json.encode(part_object(part, upload)))


@operation(
    scope=Scope.SUBMIT,
    body=Body(type=Completion, example="{}"),
    answers={200: Answer("The upload with its file.", UploadObject)},
    fails=(400, 404),
)
def complete_upload(request: HttpRequest, caller: Caller, upload_id: str) -> HttpResponse:
    """Make a file of the parts, in the order in which they are named."""
    upload = _open(_find(caller, upload_id), timezone.now())
    asked: Completion = read_body(request, Completion)
    parts = _in_order(upload, asked.part_ids)
    key, md5 = new_file_key(), hashlib.md5(usedforsecurity=False)
    with clientfiles.incoming(key) as came:
        for part in parts:
            for piece in clientfiles.pieces(part.key):
                came.write(piece)
                md5.update(piece)
        if asked.md5 is not None and asked.md5.lower() != md5.hexdigest():
            raise wrong_value("md5", "it is not the checksum of the parts in this order")
    try:
        now = timezone.now()
        upload = _become_file(upload, key, came.sha256, now)
    except BaseException:
        clientfiles.path_of(key).unlink(missing_ok=True)
        raise
    clientfiles.drop_parts(upload)
    return _shown(upload, now)


def _in_order(upload: FileUpload, part_ids: Sequence[str]) -> list[UploadPart]:
    """Return the parts that are named. Raises Problem unless they make up the announced file."""
    there = {part.key: part for part in upload.parts.all()}
    if len(set(part_ids)) != len(part_ids) or any(key not in there for key in part_ids):
        raise wrong_value("part_ids", "each must be a part of this upload, named once")
    parts = [there[key] for key in part_ids]
    size = sum(part.size_bytes for part in parts)
    if size != upload.size_bytes:
        message = f"The parts have {size} bytes; the upload was announced with {upload.size_bytes}."
        raise Problem(400, message, param="part_ids", code="invalid_value")
    return parts


def _become_file(upload: FileUpload, key: str, sha256: str, now: datetime) -> FileUpload:
    """Make the file's row; of two that complete one upload, one finds it ended."""
    with transaction.atomic():
        locked = FileUpload.objects.select_for_update().get(pk=upload.pk)
        _open(locked, now)
        locked.file = ClientFile.objects.create(
            key=key,
            project_id=locked.project_id,
            purpose=locked.purpose,
            filename=locked.filename,
            size_bytes=locked.size_bytes,
            sha256=sha256,
            created_at=now,
            expires_at=expiry(locked.purpose, locked.expires_after_s, now),
        )
        locked.save(update_fields=["file"])
    return locked


@operation(scope=Scope.SUBMIT, answers={200: Answer("The upload.", UploadObject)}, fails=(400, 404))
def cancel_upload(request: HttpRequest, caller: Caller, upload_id: str) -> HttpResponse:
    """Give an upload up; its parts are removed."""
    now = timezone.now()
    upload = _open(_find(caller, upload_id), now)
    FileUpload.objects.filter(pk=upload.pk, file=None).update(cancelled_at=now)
    upload = _find(caller, upload_id)
    clientfiles.drop_parts(upload)
    return _shown(upload, now)


def _status(upload: FileUpload, now: datetime) -> str:
    if upload.file_id is not None:
        return "completed"
    if upload.cancelled_at is not None:
        return "cancelled"
    return "expired" if upload.expires_at <= now else "pending"


def _open(upload: FileUpload, now: datetime) -> FileUpload:
    """Return an upload that takes parts. Raises Problem when it does not any more."""
    status = _status(upload, now)
    if status != "pending":
        raise Problem(400, f"The upload is {status}.", param="upload_id", code="invalid_upload")
    return upload


def _find(caller: Caller, upload_id: str) -> FileUpload:
    rows = FileUpload.objects.filter(project=caller.project).select_related("file")
    row = rows.filter(key=upload_id).first() if "\0" not in upload_id else None
    if row is None:
        raise Problem(404, f"No such Upload object: {upload_id[:100]}", param="upload_id")
    return row


def _shown(row: FileUpload, now: datetime) -> HttpResponse:
    return render(msgspec.json.encode(upload_object(row, _status(row, now))))
