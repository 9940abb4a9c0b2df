"""Why is it not done? One answer for a request, one for a batch: the reasons, what comes next, and about when.

Read by the API and the panel; decides nothing. Whatever waits has its reason here, in words for a person. Each
answer takes a few queries, however many requests are meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batching import figures, order, turnaround
from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Destination, Flag, Request
from batching.models.batches import IN_LINE, PROVIDER_HOLDS
from delivery import health

_MOST_LOOKED_AT: Final = 1_000
_DESTINATIONS_NAMED: Final = 3
_YET_TO_GO: Final = (BatchState.BUILDING, *IN_LINE)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """When it may be done, by what was learned; a guess, never a promise."""

    at: datetime
    basis: str
    """What it was worked out from."""


@dataclass(frozen=True, kw_only=True)
class Why:
    """Where something stands."""

    reasons: tuple[str, ...]
    """Whole sentences, each the reason of the one before it."""
    next: str = ""
    """What happens next by itself, without a full stop; empty: nothing does."""
    next_at: datetime | None = None
    """When, as far as that is known; None: as soon as it can."""
    estimate: Estimate | None = None

    def __str__(self) -> str:
        parts = [*self.reasons]
        if self.next:
            parts.append(
                f"Next: {self.next}{f', at {_clock(self.next_at)}' if self.next_at else ''}."
            )
        if self.estimate:
            parts.append(f"Estimated: {_clock(self.estimate.at)} ({self.estimate.basis}).")
        return " ".join(parts)


def of_request(request: Request, now: datetime) -> Why:
    """Say why a request is where it is. Reads its batch with lane and account, and its destination."""
    s = RequestState
    if request.state in (s.PENDING, s.PROCESSING):
        return _unanswered(request, now)
    ended, destination = _ended(request), request.destination
    if destination is None:
        return Why(reasons=(ended, "Its client pulls the result."))
    if request.delivered_at:
        return Why(reasons=(ended, f"The result was delivered at {_clock(request.delivered_at)}."))
    if request.dead_at:
        given_up = f"Delivery was given up after {request.tries} tries; redeliver it when the receiver is well."
        if request.discarded_at:
            given_up = f"Delivery was given up, and a person discarded it at {_clock(request.discarded_at)}."
        return Why(reasons=(ended, given_up))
    return _delivering(request, destination, ended, now)


def of_batch(batch: Batch, now: datetime, *, project_id: int | None = None) -> Why:
    """Say why a batch is where it is; with a project, as that project may see it. Reads its lane."""
    state = BatchState(batch.state)
    words, following = _BATCH[state]
    reasons = [words(batch)]
    reasons += _in_line(batch)
    if state == BatchState.BUILDING:
        reasons += _shut()
    if state == BatchState.DELIVERING:
        reasons += _held_deliveries(batch, now, project_id)
    if batch.last_error and not batch.is_final:
        reasons.append(f"Last trouble: {batch.last_error[:300]}.")
    at = batch.seal_by if state == BatchState.BUILDING else batch.next_attempt_at
    return Why(
        reasons=tuple(reasons),
        next=following,
        next_at=at if following and at and at > now else None,
        estimate=_estimate(batch, now),
    )


def _unanswered(request: Request, now: datetime) -> Why:
    again = f"It is sent for the {request.attempt}. time." if request.attempt > 1 else ""
    if request.batch is None and request.state == RequestState.PROCESSING:
        asked = "No batch brings it in time, so the provider is asked directly."
        return Why(reasons=(asked,), next="its answer is delivered")
    if request.batch is None:
        waits = "It waits to be packed into a batch, within seconds."
        return Why(
            reasons=tuple(filter(None, (waits, again, *_shut()))), next="it is packed into a batch"
        )
    batch = of_batch(request.batch, now, project_id=request.project_id)
    here = f"It is in batch {request.batch.key}."
    return Why(
        reasons=tuple(filter(None, (here, again, *batch.reasons))),
        next=batch.next,
        next_at=batch.next_at,
        estimate=batch.estimate,
    )


def _ended(request: Request) -> str:
    if request.outcome == "succeeded":
        return "It is answered."
    what = ": ".join(filter(None, (request.error_code, request.error_message)))
    return f"It is {request.state} ({what})." if what else f"It is {request.state}."


def _delivering(request: Request, destination: Destination, ended: str, now: datetime) -> Why:
    """Say what a result waits for on its way to its destination."""
    held = health.of(destination, now=now).sentence
    if destination.disabled_at or destination.paused_at:
        reason = f"The result is held: its destination is {held}."
        return Why(reasons=(ended, reason), next="it is sent when someone lets it go on")
    reasons = [ended]
    if held:
        reasons.append(f"Its destination: {held}.")
    if not request.due_at:
        return Why(reasons=(*reasons, "The result is being delivered."))
    if request.due_at <= now:
        return Why(reasons=(*reasons, "The result is being delivered."), next="it is sent")
    if request.tries:
        reasons.append(f"{request.tries} tries at delivery failed.")
    return Why(
        reasons=tuple(reasons), next=f"try {request.tries + 1} at delivery", next_at=request.due_at
    )


def _in_line(batch: Batch) -> list[str]:
    """Say what a pause means in this state, and where it stands in its lane."""
    place = order.place_of(batch) if batch.state in IN_LINE else None
    return list(filter(None, (_pause(batch), f"It has {place}." if place else "")))


def _shut() -> list[str]:
    """Say that nothing is added for now because of maintenance."""
    flag = Flag.objects.filter(name=Flag.MAINTENANCE, is_on=True).first()
    if flag is None:
        return []
    why = f" ({flag.reason})" if flag.reason else ""
    return [f"Maintenance mode is on{why}: new requests are refused, what was taken goes on."]


def _pause(batch: Batch) -> str:
    """A waiting batch has it as its reason already."""
    if not batch.paused_at or batch.state == BatchState.WAITING_FOR_CAPACITY:
        return ""
    if batch.state in order.MOVABLE:
        return f"It is paused {batch.pause_reason}; it is not started until someone resumes it."
    if batch.state in PROVIDER_HOLDS:
        return f"Pausing, {batch.pause_reason}: what the provider holds is finished and delivered."
    return ""


def _held_deliveries(batch: Batch, now: datetime, project_id: int | None) -> list[str]:
    """Name the destinations that results of the batch wait for, with what holds them up."""
    due = Request.objects.filter(batch=batch, due_at__isnull=False, destination__isnull=False)
    if project_id is not None:
        due = due.filter(project=project_id)
    ids = due.order_by().values_list("destination_id", flat=True)[:_MOST_LOOKED_AT]
    counts = Counter(ids)
    rows = Destination.objects.in_bulk([pk for pk, _ in counts.most_common(_DESTINATIONS_NAMED)])
    sentences = health.of_many(list(rows.values()), now=now)
    found = [(counts[pk], row, sentences[pk].sentence) for pk, row in rows.items()]
    more = "At least " if counts.total() == _MOST_LOOKED_AT else ""
    return [
        f"{more}{count:,} of its results wait for {row}{f': {held}' if held else ''}."
        for count, row, held in sorted(found, key=lambda f: -f[0])
    ]


def _estimate(batch: Batch, now: datetime) -> Estimate | None:
    """Guess when the provider is done with it: by its own progress, else by what its lane's batches took."""
    if batch.state in _YET_TO_GO:
        return _by_line(batch, now)
    if batch.state != BatchState.PROCESSING or batch.create_started_at is None:
        return None
    return by_progress(batch, now) or _by_lane(batch.lane_id, batch.create_started_at, now)


def _by_line(batch: Batch, now: datetime) -> Estimate | None:
    """Let those before it take as long as half of the lane's batches do, one queueful after the other."""
    known, lane = turnaround.expected(batch.lane_id), batch.lane
    is_held = batch.paused_at or lane.paused_at or lane.account.paused_at
    if known.is_guess or is_held or not lane.account.is_enabled or lane.account.silent_since:
        return None
    waits_until = batch.seal_by if batch.state == BatchState.BUILDING else batch.next_attempt_at
    turns, start = figures.rounds(batch), max(now, waits_until or now)
    minutes = max(1, round(known.p50.total_seconds() / 60))
    ahead = f"{turns - 1:,} queuefuls go before it, and " if turns > 1 else ""
    basis = f"a guess: {ahead}half of the lane's batches took up to {minutes:,} min"
    return Estimate(at=start + turns * known.p50, basis=basis)


def _by_lane(lane_id: int, started: datetime, now: datetime) -> Estimate | None:
    """Take as long as half of the lane's batches, or nine of ten when it is past that."""
    known = turnaround.expected(lane_id)
    if known.is_guess:
        return None
    for share, span in (("half", known.p50), ("nine of ten", known.p90)):
        if started + span > now:
            minutes = max(1, round(span.total_seconds() / 60))
            basis = f"{share} of the lane's batches took up to {minutes:,} min"
            return Estimate(at=started + span, basis=basis)
    return None


def by_progress(batch: Batch, now: datetime) -> Estimate | None:
    """Go on at the pace that the provider had so far; None when it shows no progress."""
    done = (batch.provider_completed or 0) + (batch.provider_failed or 0)
    left = (batch.provider_total or 0) - done
    started, seen = batch.create_started_at, batch.polled_at
    if not (done and started and seen) or left <= 0:
        return None
    at = seen + (seen - started) * left / done
    if batch.provider_expires_at:
        at = min(at, batch.provider_expires_at)
    if at <= now:
        return None
    minutes = max(1, round((seen - started).total_seconds() / 60))
    return Estimate(at=at, basis=f"{done:,} of {done + left:,} took {minutes:,} min")


def _processing(batch: Batch) -> str:
    if batch.wait_reason:
        return f"The provider holds it: {batch.wait_reason}."
    done = (batch.provider_completed or 0) + (batch.provider_failed or 0)
    of = (
        f" {done:,} of {batch.provider_total:,} done"
        if batch.provider_total
        else " no progress told"
    )
    until = batch.provider_expires_at
    window = f"; its window ends at {_clock(until)}" if until else ""
    return f"The provider works on it ({batch.provider_status or 'accepted'}):{of}{window}."


def _submitting(batch: Batch) -> str:
    if batch.doubtful_since:
        return "Nobody knows whether the provider started it, so it is looked for there."
    return "The provider was asked to start it; its answer is awaited."


def _waiting(batch: Batch) -> str:
    return f"It waits: {batch.wait_reason}." if batch.wait_reason else "It waits for its turn."


def _says(text: str) -> Callable[[Batch], str]:
    return lambda _batch: text


_ASKED = "the provider is asked about it"
_FETCHED = "its answers are fetched"
_STARTED = "it is started as soon as it may"
_BATCH: Final[dict[BatchState, tuple[Callable[[Batch], str], str]]] = {
    BatchState.BUILDING: (
        lambda b: f"It is filling: {b.request_count:,} requests so far; it goes when it is full.",
        "it is sealed, full or not",
    ),
    BatchState.UPLOADING: (
        lambda b: f"Its file of {b.request_count:,} requests is being uploaded.",
        "its file is uploaded",
    ),
    BatchState.UPLOADED: (_says("Its file is at the provider."), _STARTED),
    BatchState.WAITING_FOR_CAPACITY: (_waiting, _STARTED),
    BatchState.SUBMITTING: (_submitting, "the provider's answer is looked for"),
    BatchState.PROCESSING: (_processing, _ASKED),
    BatchState.CANCELLING: (
        _says("The provider was asked to stop it; finished answers are kept."),
        _ASKED,
    ),
    BatchState.COMPLETED: (_says("The provider is done."), _FETCHED),
    BatchState.DOWNLOADING: (_says("Its answers are being fetched and matched."), _FETCHED),
    BatchState.READY_TO_DELIVER: (
        _says("Its results are about to be delivered."),
        "its results are sent",
    ),
    BatchState.DELIVERING: (
        _says("Its results are being delivered."),
        "it is closed when the last result has its end",
    ),
    BatchState.DELIVERED: (_says("Every result was delivered, or waits to be pulled."), ""),
    BatchState.PARTIALLY_DELIVERED: (
        _says("Some results were delivered; see the failed ones."),
        "",
    ),
    BatchState.DELIVERY_FAILED: (_says("No result could be delivered; see the attempts."), ""),
    BatchState.FAILED: (
        lambda b: f"It failed: {b.last_error[:300] or 'no reason given'}. A person may restart it.",
        "",
    ),
    BatchState.EXPIRED: (
        _says("It expired at the provider; unanswered requests are sent again."),
        "",
    ),
    BatchState.CANCELLED: (_says("It was cancelled."), ""),
}
"""What each state means, and what follows by itself."""


def _clock(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "an unknown time"
