"""The stages of a batch, by the sandbox's clock.

validating → in_progress → finalizing → completed | expired | cancelled; validating → failed;
cancelling → cancelled. Each function moves a Batch one stage on and sets ``due_at`` for the next.
Stages begin when they were due, not when somebody looked, so that a batch tells the same story at
any speed and after any restart. No file is read and nothing is stored here: engine.py does that.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.faults import (
    BatchRule,
    CancelByProvider,
    Expire,
    FailValidation,
    Slow,
    TokenLimitExceeded,
)
from sandbox.lines import Validation
from sandbox.objects import Batch, BatchError, TokenUse, answered_by
from sandbox.scenario import Durations

WINDOW_S = 24 * 60 * 60


def durations_for(durations: Durations, faults: Sequence[BatchRule]) -> Durations:
    """Return the scenario's durations, or a slow batch's own."""
    slow = next((fault for fault in faults if isinstance(fault, Slow)), None)
    if slow is None:
        return durations
    own = {name: getattr(slow, name) for name in Durations.__struct_fields__}
    base = {name: getattr(durations, name) for name in Durations.__struct_fields__}
    return Durations(**base | {name: value for name, value in own.items() if value is not None})


def imposed_error(faults: Sequence[BatchRule], model: str) -> BatchError | None:
    """Return the error with which a rule fails the batch at validation."""
    for fault in faults:
        if isinstance(fault, FailValidation):
            return BatchError(
                code=fault.code, message=fault.message, param=fault.param, line=fault.line
            )
        if isinstance(fault, TokenLimitExceeded):
            return queue_full(model, fault.limit)
    return None


def queue_full(model: str, limit: int) -> BatchError:
    """Return the error of a batch that finds its model's queue of tokens full."""
    return BatchError(
        code="token_limit_exceeded",
        message=f"Enqueued token limit reached for {model} in organization org-sandbox. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have "
        "been completed.",
    )


def refuse(batch: Batch, error: BatchError) -> None:
    """Move validating → failed."""
    batch.status = "failed"
    batch.errors = [error]
    batch.failed_at = batch.due_at
    batch.due_at = None


def begin(
    batch: Batch, found: Validation, durations: Durations, faults: Sequence[BatchRule]
) -> None:
    """Move validating → in_progress; how and when the batch will end is settled here."""
    start = batch.due_at if batch.due_at is not None else batch.created_at
    batch.status = "in_progress"
    batch.in_progress_at = start
    batch.total, batch.tokens = found.total, found.tokens
    batch.ending, batch.answered = "completed", found.total
    batch.due_at = start + durations.in_progress_s
    if batch.due_at > batch.expires_at:
        share = max(0.0, (batch.expires_at - start) / durations.in_progress_s)
        batch.ending, batch.answered = "expired", int(found.total * share)
        batch.due_at = max(start, batch.expires_at)
    for fault in faults:
        if isinstance(fault, Expire):
            batch.ending, batch.answered = "expired", min(fault.after_answers, found.total)
        elif isinstance(fault, CancelByProvider):
            batch.ending, batch.answered = "cancelled", min(fault.after_answers, found.total)


def finalize(batch: Batch, durations: Durations) -> None:
    """Move in_progress → finalizing, or cancelling when the provider is about to cancel it."""
    at = batch.due_at if batch.due_at is not None else batch.created_at
    if batch.ending == "cancelled":
        batch.status, batch.cancelling_at = "cancelling", at
        batch.due_at = at + durations.cancelling_s
        return
    batch.status, batch.finalizing_at = "finalizing", at
    batch.due_at = at + durations.finalizing_s


def cancel(batch: Batch, now: float, durations: Durations) -> None:
    """Move any running status → cancelling, with what was answered so far."""
    batch.answered = answered_by(batch, now) if batch.status == "in_progress" else batch.answered
    batch.status = "cancelling"
    batch.ending = "cancelled"
    batch.cancelling_at = now
    batch.due_at = now + durations.cancelling_s


def end(batch: Batch, *, completed: int, failed: int, usage: TokenUse | None) -> None:
    """Move finalizing, cancelling → the ending that was settled before."""
    batch.status = batch.ending
    if batch.ending == "completed":
        batch.completed_at = batch.due_at
    elif batch.ending == "expired":
        batch.expired_at = batch.due_at
    else:
        batch.cancelled_at = batch.due_at
    batch.completed, batch.failed, batch.usage = completed, failed, usage
    batch.due_at = None
