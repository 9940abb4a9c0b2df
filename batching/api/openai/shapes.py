"""OpenAI's objects: files, uploads, batches, models, as an official SDK's types demand.

Functions turn rows into them; nothing here asks the database. A client's batch is a Submission: its id is
that one's key with OpenAI's prefix.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

from batching.api.doors import client_id, key_of
from batching.api.openai.door import unix
from batching.clientprogress import Counts
from batching.models import ClientFile, FileUpload, Lane, Submission, UploadPart

_THEIRS: Final = "batch_"


class FileObject(Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    """0 while its batch still runs and the file grows."""
    created_at: int | None
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class Deleted(Struct, frozen=True, kw_only=True):
    """What is said of a file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class UploadObject(Struct, frozen=True, kw_only=True):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int | None
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    file: FileObject | None


class PartObject(Struct, frozen=True, kw_only=True):
    """One part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int | None
    upload_id: str


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model that requests have been sent to."""

    id: str
    object: Literal["model"] = "model"
    created: int | None
    owned_by: str


class InputDetails(Struct, frozen=True):
    """Of the input tokens."""

    cached_tokens: int


class OutputDetails(Struct, frozen=True):
    """Of the output tokens."""

    reasoning_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of all answers, in the words of the Responses API."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class RequestCounts(Struct, frozen=True, kw_only=True):
    """How many requests there are, and how many ended well and badly."""

    total: int
    completed: int
    failed: int


class LineErrors(Struct, frozen=True, kw_only=True):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class BatchObject(Struct, frozen=True, kw_only=True):
    """A client's batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: None = None
    errors: LineErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int | None
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: None = None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: Usage | None
    metadata: dict[str, str] | None


def file_object(row: ClientFile) -> FileObject:
    """Return a file as OpenAI shows it."""
    return FileObject(
        id=row.key,
        bytes=row.size_bytes or 0,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
    )


def upload_object(row: FileUpload, status: str) -> UploadObject:
    """Return an upload as OpenAI shows it; read its ``file``."""
    return UploadObject(
        id=row.key,
        bytes=row.size_bytes,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
        status=status,
        file=file_object(row.file) if row.file else None,
    )


def part_object(row: UploadPart, upload: FileUpload) -> PartObject:
    """Return a part as OpenAI shows it."""
    return PartObject(id=row.key, created_at=unix(row.created_at), upload_id=upload.key)


def model_object(lane: Lane) -> ModelObject:
    """Return a lane's model; read its ``account``."""
    return ModelObject(id=lane.model, created=unix(lane.created_at), owned_by=lane.account.kind)


def batch_id(row: Submission) -> str:
    """Return what a client calls its batch."""
    return client_id(row, _THEIRS)


def batch_key(client_batch_id: str) -> str:
    """Return the key of the submission that a client calls so; one that is nobody's for other words."""
    return key_of(client_batch_id, _THEIRS)


def status_of(row: Submission, counts: Counts) -> str:
    """Return OpenAI's word for how far a batch is. Never ``expired``: we send again what expired."""
    words = (
        (row.failed_at, "failed"),
        (row.cancelled_at, "cancelled"),
        (row.completed_at, "completed"),
        (row.cancelling_at, "cancelling"),
        (row.finalizing_at, "finalizing"),
        (row.in_progress_at, "in_progress"),
    )
    word = next((word for at, word in words if at), "validating")
    has_ended = counts.completed + counts.failed == counts.total
    return "finalizing" if word == "in_progress" and has_ended else word


def batch_object(row: Submission, counts: Counts, files: dict[str, str]) -> BatchObject:
    """Return a batch as OpenAI shows it; ``files`` are its files' keys by side. Read ``input_file``."""
    return BatchObject(
        id=batch_id(row),
        endpoint=row.endpoint,
        errors=LineErrors(data=row.line_errors) if row.failed_at else None,
        input_file_id=row.input_file.key if row.input_file else "",
        completion_window=row.completion_window,
        status=status_of(row, counts),
        output_file_id=files.get(ClientFile.Side.OUTPUT),
        error_file_id=files.get(ClientFile.Side.ERRORS),
        created_at=unix(row.created_at),
        in_progress_at=unix(row.in_progress_at),
        expires_at=unix(row.expires_at),
        finalizing_at=unix(row.finalizing_at),
        completed_at=unix(row.completed_at),
        failed_at=unix(row.failed_at),
        cancelling_at=unix(row.cancelling_at),
        cancelled_at=unix(row.cancelled_at),
        request_counts=RequestCounts(
            total=counts.total, completed=counts.completed, failed=counts.failed
        ),
        usage=_usage(row),
        metadata=row.metadata,
    )


def _usage(row: Submission) -> Usage | None:
    if row.input_tokens is None and row.output_tokens is None:
        return None
    came, went = row.input_tokens or 0, row.output_tokens or 0
    return Usage(
        input_tokens=came,
        input_tokens_details=InputDetails(row.cached_tokens or 0),
        output_tokens=went,
        output_tokens_details=OutputDetails(row.reasoning_tokens or 0),
        total_tokens=came + went,
    )
