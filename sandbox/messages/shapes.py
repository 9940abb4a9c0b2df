"""How Anthropic's API shows message batches (anthropic SDK 2.11 types).

The stages behind are the same as on OpenAI's side; here are three: ``in_progress``, ``canceling``,
``ended``. Lies about a batch that only touch its looks are told here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.faults import BadCounts, BatchRule, UnknownStatus
from sandbox.objects import Batch

RESULTS_KEPT_S = 29 * 24 * 60 * 60
"""After creation."""


def status_of(batch: Batch) -> str:
    """Return ``processing_status``."""
    if batch.is_final:
        return "ended"
    return "canceling" if batch.status == "cancelling" else "in_progress"


def is_archived(batch: Batch, now: float) -> bool:
    """Return whether the results are gone."""
    return now >= batch.created_at + RESULTS_KEPT_S


def batch_object(
    batch: Batch, faults: Sequence[BatchRule], now: float, results_url: str
) -> dict[str, Any]:
    """Return the MessageBatch as it looks at ``now``, with the lies that ``faults`` tell."""
    has_results = batch.output_file_id is not None and not is_archived(batch, now)
    ended_at = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.failed_at
    archived_at = batch.created_at + RESULTS_KEPT_S if is_archived(batch, now) else None
    shown: dict[str, Any] = {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status_of(batch),
        "request_counts": _counts(batch),
        "created_at": _time(batch.created_at),
        "expires_at": _time(batch.expires_at),
        "ended_at": _time(ended_at),
        "cancel_initiated_at": _time(batch.cancelling_at),
        "archived_at": _time(archived_at),
        "results_url": results_url if has_results else None,
    }
    for fault in faults:
        if isinstance(fault, UnknownStatus) and fault.during == status_of(batch):
            shown["processing_status"] = fault.status
        elif isinstance(fault, BadCounts) and fault.during in (None, status_of(batch)):
            shown["request_counts"] = fault.counts
    return shown


def list_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, object]:
    """Return one page of a list."""
    return {
        "data": data,
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _counts(batch: Batch) -> dict[str, int]:
    """Leave all in ``processing`` until the batch has ended, as Anthropic does."""
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if not batch.is_final:
        return counts | {"processing": batch.total}
    if batch.status == "failed":
        return counts | {"errored": batch.total}
    not_run = batch.total - batch.answered
    rest = "expired" if batch.ending == "expired" else "canceled"
    failed = batch.failed - not_run
    return counts | {"succeeded": batch.completed, "errored": failed, rest: not_run}


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
