"""Why is it not done? One plain sentence for a request or a batch, and what happens next.

Read by the API and the admin; decides nothing. Whatever waits has its reason here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from batching import order
from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Request
from batching.models.batches import PROVIDER_HOLDS


def explain_request(request: Request, now: datetime) -> str:
    """Return why a request is where it is. Reads its batch and destination."""
    s = RequestState
    if request.state == s.PENDING and request.batch is None:
        return "It waits to be packed into a batch, within seconds."
    if request.state in (s.PENDING, s.PROCESSING) and request.batch is not None:
        return f"It is in batch {request.batch.key}. {explain_batch(request.batch, now)}"
    return f"{_ended(request)}{_delivery(request, now)}"


def _ended(request: Request) -> str:
    if request.outcome == "succeeded":
        return "It is answered."
    what = ": ".join(filter(None, (request.error_code, request.error_message)))
    return f"It is {request.state} ({what})." if what else f"It is {request.state}."


def _delivery(request: Request, now: datetime) -> str:
    destination = request.destination
    if destination is None:
        return " Its client pulls the result."
    if request.delivered_at:
        return f" The result was delivered at {_clock(request.delivered_at)}."
    if request.dead_at:
        return f" Delivery was given up after {request.tries} tries; redeliver it when the receiver is well."
    if destination.disabled_at or destination.paused_at:
        held = "disabled" if destination.disabled_at else "paused"
        return f" The result is held: its destination is {held} ({destination.stop_reason})."
    if request.due_at and request.due_at > now:
        return f" Try {request.tries + 1} at delivery is due at {_clock(request.due_at)}."
    return " The result is being delivered."


def explain_batch(batch: Batch, now: datetime) -> str:
    """Return why a batch is where it is, its last trouble included."""
    sentence = _BATCH[BatchState(batch.state)](batch) + _pause(batch)
    if batch.last_error and not batch.is_final:
        sentence += f" Last trouble: {batch.last_error[:300]}."
        if batch.next_attempt_at and batch.next_attempt_at > now:
            sentence += f" Next try at {_clock(batch.next_attempt_at)}."
    return sentence


def _waiting(batch: Batch) -> str:
    place = order.place_of(batch)
    return f"It waits ({place}): {batch.wait_reason or 'it is looked at within seconds'}."


def _pause(batch: Batch) -> str:
    """Say what a pause means in this state; a waiting batch has it as its reason already."""
    if not batch.paused_at or batch.state == BatchState.WAITING_FOR_CAPACITY:
        return ""
    if batch.state in order.MOVABLE:
        return f" It is paused {batch.pause_reason}; it is not started until someone resumes it."
    if batch.state in PROVIDER_HOLDS:
        return f" Pausing, {batch.pause_reason}: what the provider holds is finished and delivered."
    return ""


def _building(batch: Batch) -> str:
    until = f", or at {_clock(batch.seal_by)}" if batch.seal_by else ""
    return (
        f"It is filling: {batch.request_count:,} requests so far; it goes when it is full{until}."
    )


def _processing(batch: Batch) -> str:
    done = (batch.provider_completed or 0) + (batch.provider_failed or 0)
    of = f" {done:,} of {batch.provider_total:,} done;" if batch.provider_total else ""
    until = (
        f" its window ends at {_clock(batch.provider_expires_at)};"
        if batch.provider_expires_at
        else ""
    )
    if batch.wait_reason:
        return f"The provider holds it: {batch.wait_reason}; next look at {_clock(batch.next_attempt_at)}."
    return (
        f"The provider works on it ({batch.provider_status or 'accepted'}):{of}{until}"
        f" next look at {_clock(batch.next_attempt_at)}."
    )


_BATCH: dict[BatchState, Callable[[Batch], str]] = {
    BatchState.BUILDING: _building,
    BatchState.UPLOADING: lambda b: f"Its file of {b.request_count:,} requests is being uploaded.",
    BatchState.UPLOADED: lambda b: (
        "Its file is at the provider; it goes as soon as its lane has room."
    ),
    BatchState.WAITING_FOR_CAPACITY: _waiting,
    BatchState.SUBMITTING: lambda b: "The provider was asked to start it; its answer is awaited.",
    BatchState.PROCESSING: _processing,
    BatchState.CANCELLING: lambda b: (
        "The provider was asked to stop it; finished answers are kept."
    ),
    BatchState.COMPLETED: lambda b: "The provider is done; its answers are fetched next.",
    BatchState.DOWNLOADING: lambda b: "Its answers are being fetched and matched.",
    BatchState.READY_TO_DELIVER: lambda b: "Its results are about to be delivered.",
    BatchState.DELIVERING: lambda b: "Its results are being delivered.",
    BatchState.DELIVERED: lambda b: "Every result was delivered, or waits to be pulled.",
    BatchState.PARTIALLY_DELIVERED: lambda b: "Some results were delivered; see the failed ones.",
    BatchState.DELIVERY_FAILED: lambda b: "No result could be delivered; see the attempts.",
    BatchState.FAILED: lambda b: f"It failed: {b.last_error[:300] or 'no reason given'}",
    BatchState.EXPIRED: lambda b: "It expired at the provider; unanswered requests are sent again.",
    BatchState.CANCELLED: lambda b: "It was cancelled.",
}


def _clock(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "an unknown time"
