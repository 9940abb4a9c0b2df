"""Anthropic's objects: message batches, as an official SDK's types demand.

Functions turn rows into them; nothing here asks the database. A client's batch is a Submission: its id is
that one's key with Anthropic's prefix.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from batching.api.doors import client_id, key_of
from batching.clientprogress import Counts
from batching.models import Submission

RESULTS_KEPT: Final = timedelta(days=29)
"""How long results can be read, from the batch's end (at Anthropic: from its creation)."""
_THEIRS: Final = "msgbatch_"


class RequestCounts(Struct, frozen=True, kw_only=True):
    """How many requests there are, by how they ended; until the batch has ended, all are processing."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(Struct, frozen=True, kw_only=True):
    """A client's batch."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: RequestCounts
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    cancel_initiated_at: datetime | None
    archived_at: datetime | None
    results_url: str | None


class MessageBatches(Struct, frozen=True, kw_only=True):
    """A page of a list."""

    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedBatch(Struct, frozen=True, kw_only=True):
    """What is said of a batch that is gone."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


def batch_id(row: Submission) -> str:
    """Return what a client calls its batch."""
    return client_id(row, _THEIRS)


def batch_key(client_batch_id: str) -> str:
    """Return the key of the submission that a client calls so; one that is nobody's for other words."""
    return key_of(client_batch_id, _THEIRS)


def archived_at(row: Submission, now: datetime) -> datetime | None:
    """Return since when a batch's results can't be read any more; None while they can, or will."""
    if row.ended_at is None or now < row.ended_at + RESULTS_KEPT:
        return None
    return row.ended_at + RESULTS_KEPT


def message_batch(row: Submission, counts: Counts, url: str, now: datetime) -> MessageBatch:
    """Return a batch as Anthropic shows it; ``url`` is where its results are once it has ended."""
    has_results = row.is_final and archived_at(row, now) is None
    return MessageBatch(
        id=batch_id(row),
        processing_status=_status(row),
        request_counts=_counts(row, counts),
        created_at=row.created_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        cancel_initiated_at=row.cancelling_at,
        archived_at=archived_at(row, now),
        results_url=url if has_results else None,
    )


def _status(row: Submission) -> Literal["in_progress", "canceling", "ended"]:
    if row.is_final:
        return "ended"
    return "canceling" if row.cancelling_at else "in_progress"


def _counts(row: Submission, counts: Counts) -> RequestCounts:
    """Count every request once: one that was never stored shares its batch's end."""
    total = row.accepted + row.rejected
    if not row.is_final:
        return RequestCounts(processing=total, succeeded=0, errored=0, canceled=0, expired=0)
    unsent = total - counts.completed - counts.failed
    canceled = counts.cancelled + (unsent if row.cancelled_at else 0)
    return RequestCounts(
        processing=0,
        succeeded=counts.completed,
        errored=total - counts.completed - canceled - counts.expired,
        canceled=canceled,
        expired=counts.expired,
    )
