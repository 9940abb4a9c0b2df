"""What the API answers: the shape of each thing, and how a row becomes one.

The OpenAPI document is printed from these types. Views call the functions below with rows whose relations
are loaded; nothing here asks the database. Inside keys never leave: every ``id`` is a public one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from django_fsm_log.models import StateLog
from msgspec import Raw, Struct, structs

from batching.models import Answer, Batch, Request, Submission
from batching.order import Place
from delivery.envelope import Usage
from delivery.models import Attempt
from delivery.why import Why

_ANSWER_SHOWN = 2_000


class Taken(Struct, frozen=True):
    """A request that we hold."""

    id: str
    custom_id: str
    state: str


class LineError(Struct, frozen=True):
    """Why one line of a bulk upload was not taken."""

    line: int
    """1-based, blank lines counted."""
    code: str
    detail: str
    pointer: str
    """JSON pointer into the line; empty for all of it."""


class BulkTaken(Struct, frozen=True):
    """What became of a bulk upload."""

    submission: str
    accepted: int
    duplicates: int
    """Lines whose very request was here before."""
    rejected: int
    errors: list[LineError]
    """The first 1,000."""
    errors_left_out: int
    """How many more there are."""


class ErrorSummary(Struct, frozen=True):
    """Why a request ended badly, in short."""

    code: str
    message: str


class RequestSummary(Struct, frozen=True):
    """One request, as lists show it."""

    id: str
    custom_id: str
    state: str
    outcome: str
    """succeeded, failed, expired or cancelled; empty while it is open."""
    batch: str | None
    submission: str | None
    url: str
    model: str
    account: str
    priority: int
    attempt: int
    """Which sending this is."""
    error: ErrorSummary | None
    created_at: datetime
    state_changed_at: datetime
    deliver_by: datetime | None


class RequestPage(Struct, frozen=True):
    """A page of requests."""

    data: list[RequestSummary]
    next_cursor: str | None


class DeliveryAttempt(Struct, frozen=True):
    """One try at delivering a result."""

    number: int
    outcome: str
    status: int | None
    """HTTP status, when there was one."""
    detail: str
    answer: str
    """What the receiver said, its first 2,000 characters."""
    is_replay: bool
    duration_s: float
    ended_at: datetime
    next_at: datetime | None
    """When the next try was due."""


class Transition(Struct, frozen=True):
    """One change of state, or something done that left it in its state."""

    at: datetime
    transition: str
    """What it was; ``paused``, ``resumed``, ``moved``, ``prioritized`` and ``promoted`` leave the state."""
    from_state: str | None
    to_state: str
    by: str | None
    """The user, if it was one; else the reason names who."""
    reason: str


class Estimate(Struct, frozen=True):
    """When it may be done: a guess from what was learned, never a promise."""

    at: datetime
    basis: str
    """What it was worked out from."""


class Explanation(Struct, frozen=True):
    """`why`, in its parts."""

    reasons: list[str]
    """Whole sentences, each the reason of the one before it."""
    next: str
    """What happens next by itself; empty: nothing does."""
    next_at: datetime | None
    """When, as far as that is known."""
    estimate: Estimate | None


class RequestDetail(Struct, frozen=True):
    """One request with all that happened to it."""

    id: str
    custom_id: str
    state: str
    outcome: str
    why: str
    """Why it is where it is and what happens next, in a few sentences."""
    explanation: Explanation
    batch: str | None
    submission: str | None
    url: str
    model: str
    account: str
    delivery_config: dict[str, str]
    priority: int
    attempt: int
    size_bytes: int
    token_estimate: int
    token_estimate_is_exact: bool
    """Counted with the model's own tokenizer; else guessed. The margin is in it either way."""
    metadata: Raw
    answer: Raw
    """The provider's response, as it came: status_code, request_id, body; null while there is none."""
    error: Raw
    """The provider's error, as it came, or ours; null when there is none."""
    usage: Usage | None
    cost: str | None
    """In US$, as decimal digits, all attempts together; null where the price or the usage is unknown."""
    attempts: list[DeliveryAttempt]
    """Newest first, at most 100."""
    transitions: list[Transition]
    """Oldest first, at most 500."""
    created_at: datetime
    state_changed_at: datetime
    deliver_by: datetime | None
    deadline_policy: str
    """What your project wants when that can't be met: wait, fail or direct."""
    settled_at: datetime | None
    next_delivery_at: datetime | None
    delivered_at: datetime | None


class RequestMoved(Struct, frozen=True):
    """A request after something was done to it."""

    id: str
    custom_id: str
    state: str
    message: str


class Counts(Struct, frozen=True):
    """The provider's own count of a batch."""

    total: int | None
    completed: int | None
    failed: int | None


class BatchSummary(Struct, frozen=True):
    """One batch, as lists show it."""

    id: str
    state: str
    account: str
    model: str
    url: str
    request_count: int
    size_bytes: int
    token_estimate: int
    provider_batch_id: str | None
    provider_status: str | None
    provider_counts: Counts
    wait_reason: str
    priority: int
    """Higher goes first: the highest of its requests', unless someone set it."""
    paused_at: datetime | None
    """Since when it may not be started; null: it is not paused."""
    pause_reason: str
    """Who paused it, and why."""
    last_error: str
    created_at: datetime
    state_changed_at: datetime
    seal_by: datetime | None
    next_attempt_at: datetime | None


class BatchPage(Struct, frozen=True):
    """A page of batches."""

    data: list[BatchSummary]
    next_cursor: str | None


class BatchDetail(BatchSummary, frozen=True):
    """One batch with its history and the state of your requests in it."""

    why: str
    """Why it is where it is and what happens next."""
    explanation: Explanation
    place: Place | None
    """Null: it does not wait in its lane."""
    requests: dict[str, int]
    """Your requests in it, by state."""
    usage: Usage
    cost: str | None
    """Of your requests in it, so far, in US$; null while nothing of a known price is answered."""
    answered_count: int | None
    failed_count: int | None
    transitions: list[Transition]
    """Oldest first, at most 500."""


class BatchMoved(Struct, frozen=True):
    """A batch after something was done to it."""

    id: str
    state: str
    message: str


class SubmissionSummary(Struct, frozen=True):
    """Requests that were sent together."""

    id: str
    accepted: int
    duplicates: int
    rejected: int
    created_at: datetime
    finished_at: datetime | None
    """When the whole upload had been read; null while it runs, or when it broke off."""


class SubmissionPage(Struct, frozen=True):
    """A page of submissions."""

    data: list[SubmissionSummary]
    next_cursor: str | None


class Progress(Struct, frozen=True):
    """How many requests of a submission have come how far; each figure but `to_deliver` only grows."""

    total: int
    packed: int
    """In a batch, or ended."""
    sent: int
    """Handed to the provider, or ended before that."""
    answered: int
    """Ended, well or badly."""
    failed: int
    """Ended badly."""
    to_deliver: int
    """Results that are on their way to a destination."""
    delivered: int
    delivery_failed: int
    """Results whose delivery was given up."""


class SubmissionDetail(SubmissionSummary, frozen=True):
    """A submission and how far it is."""

    requests: dict[str, int]
    """Its requests, by state."""
    progress: Progress
    cost: str | None
    """So far, in US$; null while nothing of a known price is answered."""


def request_summary(row: Request) -> RequestSummary:
    """Read ``lane__account``, ``batch`` and ``submission`` of the row."""
    return RequestSummary(
        id=row.key,
        custom_id=row.custom_id,
        state=row.state,
        outcome=row.outcome,
        batch=row.batch.key if row.batch else None,
        submission=row.submission.key if row.submission else None,
        url=row.lane.endpoint,
        model=row.lane.model,
        account=row.lane.account.name,
        priority=row.priority,
        attempt=row.attempt,
        error=ErrorSummary(code=row.error_code, message=row.error_message)
        if row.error_code
        else None,
        created_at=row.created_at,
        state_changed_at=row.state_changed_at,
        deliver_by=row.deliver_by,
    )


def usage(row: Answer | Batch) -> Usage:
    """Return the tokens of an answer or of a whole batch."""
    return Usage(
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )


def attempts(rows: Iterable[Attempt]) -> list[DeliveryAttempt]:
    """Return tries as the API shows them."""
    return [
        DeliveryAttempt(
            number=row.number,
            outcome=row.outcome,
            status=row.status,
            detail=row.detail,
            answer=row.answer[:_ANSWER_SHOWN],
            is_replay=row.is_replay,
            duration_s=round(row.duration_s, 3),
            ended_at=row.ended_at,
            next_at=row.next_at,
        )
        for row in rows
    ]


def transitions(rows: Iterable[StateLog]) -> list[Transition]:
    """Return log rows as the API shows them; read their ``by``."""
    return [
        Transition(
            at=row.timestamp,
            transition=row.transition,
            from_state=row.source_state,
            to_state=row.state,
            by=row.by.get_username() if row.by else None,
            reason=row.description or "",
        )
        for row in rows
    ]


def batch_summary(row: Batch) -> BatchSummary:
    """Read ``lane__account`` of the row."""
    return BatchSummary(
        id=row.key,
        state=row.state,
        account=row.lane.account.name,
        model=row.lane.model,
        url=row.lane.endpoint,
        request_count=row.request_count,
        size_bytes=row.size_bytes,
        token_estimate=row.token_estimate,
        provider_batch_id=row.provider_batch_id or None,
        provider_status=row.provider_status or None,
        provider_counts=Counts(
            total=row.provider_total,
            completed=row.provider_completed,
            failed=row.provider_failed,
        ),
        wait_reason=row.wait_reason,
        priority=row.priority,
        paused_at=row.paused_at,
        pause_reason=row.pause_reason,
        last_error=row.last_error,
        created_at=row.created_at,
        state_changed_at=row.state_changed_at,
        seal_by=row.seal_by,
        next_attempt_at=row.next_attempt_at,
    )


def explanation(why: Why) -> Explanation:
    """Return the parts of an answer to why it is not done."""
    return Explanation(
        reasons=list(why.reasons),
        next=why.next,
        next_at=why.next_at,
        estimate=Estimate(at=why.estimate.at, basis=why.estimate.basis) if why.estimate else None,
    )


def batch_detail(
    row: Batch,
    *,
    why: Why,
    place: Place | None,
    requests: Mapping[str, int],
    cost: str | None,
    log: Iterable[StateLog],
) -> BatchDetail:
    """Return a batch with what was asked beside it."""
    return BatchDetail(
        **structs.asdict(batch_summary(row)),
        why=str(why),
        explanation=explanation(why),
        place=place,
        requests=dict(requests),
        usage=usage(row),
        cost=cost,
        answered_count=row.answered_count,
        failed_count=row.failed_count,
        transitions=transitions(log),
    )


def submission_summary(row: Submission) -> SubmissionSummary:
    """Return a submission as lists show it."""
    return SubmissionSummary(
        id=row.key,
        accepted=row.accepted,
        duplicates=row.duplicates,
        rejected=row.rejected,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def submission_detail(
    row: Submission, requests: Mapping[str, int], progress: Progress, cost: str | None
) -> SubmissionDetail:
    """Return a submission with the counts of its requests."""
    summary = structs.asdict(submission_summary(row))
    return SubmissionDetail(**summary, requests=dict(requests), progress=progress, cost=cost)
