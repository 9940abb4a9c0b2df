"""What the sandbox keeps of files and batches, and how OpenAI's API shows them.

The Structs are what store.py writes down; ``file_object`` and ``batch_object`` are the only places
that know the wire's shapes (openai SDK 3.52 types and openai-openapi, 2026-08). Lies about a batch
that only touch its looks (odd status, odd counts) are told here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from sandbox.faults import BadCounts, BatchRule, NoBatchUsage, UnknownStatus
from sandbox.names import dated

Ending = Literal["completed", "expired", "cancelled"]
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class StoredFile(msgspec.Struct, kw_only=True):
    """A file; its bytes lie beside the database under its id."""

    id: str
    filename: str
    purpose: str
    size_bytes: int
    created_at: float
    expires_at: float | None = None


class TokenUse(msgspec.Struct, kw_only=True):
    """Tokens, Responses-style, as they are summed over a batch."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def add(self, other: TokenUse) -> None:
        """Add another answer's tokens."""
        self.input += other.input
        self.cached += other.cached
        self.output += other.output
        self.reasoning += other.reasoning


class BatchError(msgspec.Struct, kw_only=True):
    """Why validation refused a batch; ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Batch(msgspec.Struct, kw_only=True):
    """A batch: what was asked for, where it stands, and what comes next."""

    id: str
    seq: int = 0
    """Counts the batches of this data folder, from 1; seeds everything random about it."""
    version: int = 0
    """Grows by one with each save; an older copy can't be saved."""
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    output_expires_after_s: int | None
    generation: int
    """Which scenario stood when it was created: its rules hold for the batch's whole life."""
    drawn: list[int]
    """Numbers of the scenario's batch rules that strike it."""
    created_at: float
    listed_at: float
    due_at: float | None
    """When the next stage begins; None at the end."""
    status: str = "validating"
    model: str | None = None
    errors: list[BatchError] | None = None
    in_progress_at: float | None = None
    expires_at: float
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: TokenUse | None = None
    tokens: int = 0
    """Rough count of prompt tokens: what it takes from the model's queue while it runs."""
    ending: Ending = "completed"
    """How it will end once its results are written."""
    answered: int = 0
    """How many of its lines will have an answer then."""
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def is_final(self) -> bool:
        """True when nothing will happen to it any more."""
        return self.status in FINAL


def file_object(file: StoredFile) -> dict[str, object]:
    """Return the File object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "expires_at": _seconds(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_object(batch: Batch, faults: Sequence[BatchRule], now: float) -> dict[str, Any]:
    """Return the Batch object as it looks at ``now``, with the lies that ``faults`` tell."""
    shown: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": None if batch.model is None else dated(batch.model),
        "errors": _errors(batch.errors),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": _seconds(batch.expires_at),
        "finalizing_at": _seconds(batch.finalizing_at),
        "completed_at": _seconds(batch.completed_at),
        "failed_at": _seconds(batch.failed_at),
        "expired_at": _seconds(batch.expired_at),
        "cancelling_at": _seconds(batch.cancelling_at),
        "cancelled_at": _seconds(batch.cancelled_at),
        "request_counts": _counts(batch, now),
        "usage": None if batch.usage is None else responses_usage(batch.usage),
        "metadata": batch.metadata,
    }
    for fault in faults:
        _lie(shown, fault, batch.status)
    return shown


def responses_usage(usage: TokenUse) -> dict[str, Any]:
    """Return usage in the words of /v1/responses, which a batch's own usage uses too."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def list_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, object]:
    """Return one page of a list."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _lie(shown: dict[str, Any], fault: BatchRule, status: str) -> None:
    if isinstance(fault, UnknownStatus) and fault.during == status:
        shown["status"] = fault.status
    elif isinstance(fault, BadCounts) and fault.during in (None, status):
        shown["request_counts"] = fault.counts
    elif isinstance(fault, NoBatchUsage):
        del shown["usage"]


def _counts(batch: Batch, now: float) -> dict[str, int]:
    """Let the count climb while the batch runs; nothing is really answered until it ends."""
    completed = batch.completed
    if batch.status in ("finalizing", "cancelling"):
        completed = batch.answered
    elif batch.status == "in_progress":
        completed = answered_by(batch, now)
    return {"total": batch.total, "completed": completed, "failed": batch.failed}


def answered_by(batch: Batch, now: float) -> int:
    """Return how many lines a running batch has answered at ``now``: evenly over its stage."""
    if batch.in_progress_at is None or batch.due_at is None:
        return 0
    length = batch.due_at - batch.in_progress_at
    share = 1.0 if length <= 0 else min(1.0, max(0.0, (now - batch.in_progress_at) / length))
    return int(batch.answered * share)


def _errors(errors: list[BatchError] | None) -> dict[str, object] | None:
    if errors is None:
        return None
    data = [
        {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
        for error in errors
    ]
    return {"object": "list", "data": data}


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)
