"""The states of batches and requests, and the only ways to move between them.

Every arrow is one named transition below; its docstring is its meaning, and docs/lifecycle.md is
printed from these tables. ``move`` takes one row along an arrow, ``move_many`` a set of rows in one
guarded statement; both read sources and targets from the same django-fsm tables and write the same
django-fsm-log rows, in the same transaction as the change. Nothing else writes a state.

Transitions do no I/O: what follows from a move is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from django.db import models, transaction
from django.utils import timezone
from django_fsm import FSMField, TransitionNotAllowed, transition
from django_fsm_log.decorators import fsm_log_by, fsm_log_description

from batching.setmoves import LogRows, move_and_log


class BatchState(models.TextChoices):
    """Where a batch is on its way. The provider's own status is another field."""

    BUILDING = "building"
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    SUBMITTING = "submitting"
    PROCESSING = "processing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DOWNLOADING = "downloading"
    READY_TO_DELIVER = "ready_to_deliver"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    PARTIALLY_DELIVERED = "partially_delivered"
    DELIVERY_FAILED = "delivery_failed"
    FAILED = "failed"


class RequestState(models.TextChoices):
    """Where a request is on its way to an end that its client is told of."""

    PENDING = "pending"
    PROCESSING = "processing"
    PROCESSED = "processed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    DELIVERY_FAILED = "delivery_failed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


BATCH_ENDS = frozenset(
    {
        BatchState.DELIVERED,
        BatchState.PARTIALLY_DELIVERED,
        BatchState.DELIVERY_FAILED,
        BatchState.FAILED,
        BatchState.CANCELLED,
        BatchState.EXPIRED,
    }
)
"""States in which nothing more happens by itself (expired and cancelled once their files are read)."""

BAD_ENDS = frozenset({RequestState.FAILED, RequestState.EXPIRED, RequestState.CANCELLED})
"""Ends without an answer to hand over: the client gets an envelope that says so."""


def outcome_of(state: str) -> str:
    """Return the word a client is told: succeeded, failed, expired or cancelled; empty while open."""
    if state in BAD_ENDS:
        return str(state)
    if state in (RequestState.PENDING, RequestState.PROCESSING):
        return ""
    return "succeeded"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who caused a move: a user, an API key, or one of our own phases."""

    name: str
    user_id: int | None = None


CLOCK = Actor(name="clock")


class Stale(Exception):
    """Someone else moved or claimed the row first; what we know of it is old."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _arrow(field: FSMField, source: Iterable[str], target: str) -> Callable[[Method], Method]:
    def decorate(method: Method) -> Method:
        moved = transition(field=field, source=[str(s) for s in source], target=str(target))(method)
        return cast(Method, fsm_log_by(fsm_log_description(moved)))

    return decorate


class _Guarded(models.Model):
    """A model whose state can't be assigned, only moved, and still be read anew."""

    class Meta:
        abstract = True

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.pop("state", None)  # the guard lets a missing state be set
        super().refresh_from_db(*args, **kwargs)


class BatchLifecycle(_Guarded):
    """The batch's state and its arrows."""

    S = BatchState
    state = FSMField(default=S.BUILDING.value, choices=S.choices, protected=True, max_length=24)
    state_changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True

    @_arrow(state, [S.BUILDING], S.UPLOADING)
    def seal(self, **log: Any) -> None:
        """Full by count, bytes or tokens; old enough; or asked for."""

    @_arrow(state, [S.UPLOADING], S.UPLOADED)
    def uploaded(self, **log: Any) -> None:
        """The provider holds the input file."""

    @_arrow(state, [S.UPLOADED, S.WAITING_FOR_CAPACITY], S.WAITING_FOR_CAPACITY)
    def wait(self, **log: Any) -> None:
        """The lane has no room now; the reason says what it waits for."""

    @_arrow(state, [S.UPLOADED, S.WAITING_FOR_CAPACITY], S.UPLOADING)
    def remake(self, **log: Any) -> None:
        """Requests were taken out of it: its file is made anew, and it keeps its place."""

    @_arrow(state, [S.UPLOADED, S.WAITING_FOR_CAPACITY], S.SUBMITTING)
    def submit(self, **log: Any) -> None:
        """The intent to create the provider batch; committed before the call."""

    @_arrow(state, [S.SUBMITTING], S.PROCESSING)
    def accepted(self, **log: Any) -> None:
        """The provider took the batch, or it was found there after a doubt."""

    @_arrow(state, [S.SUBMITTING], S.WAITING_FOR_CAPACITY)
    def not_accepted(self, **log: Any) -> None:
        """A definite no that may be a yes later."""

    @_arrow(state, [S.PROCESSING], S.SUBMITTING)
    def let_go(self, **log: Any) -> None:
        """What was found there is somebody else's batch: its creation is in doubt again."""

    @_arrow(state, [S.PROCESSING], S.WAITING_FOR_CAPACITY)
    def back_off(self, **log: Any) -> None:
        """The provider's queue is full (token_limit_exceeded)."""

    @_arrow(state, [S.PROCESSING, S.CANCELLING], S.COMPLETED)
    def complete(self, **log: Any) -> None:
        """The provider is done; answers may be good or bad."""

    @_arrow(state, [S.PROCESSING, S.CANCELLING], S.EXPIRED)
    def expire(self, **log: Any) -> None:
        """The provider's window closed; finished answers are kept."""

    @_arrow(state, [S.PROCESSING, S.CANCELLING], S.CANCELLED)
    def cancelled_by_provider(self, **log: Any) -> None:
        """The provider stopped it, asked or not; finished answers are kept."""

    @_arrow(state, [S.COMPLETED, S.EXPIRED, S.CANCELLED], S.DOWNLOADING)
    def download(self, **log: Any) -> None:
        """There are answers to fetch."""

    @_arrow(state, [S.DOWNLOADING], S.READY_TO_DELIVER)
    def settled(self, **log: Any) -> None:
        """Each request has its answer or its error, or went back to pending."""

    @_arrow(state, [S.DOWNLOADING], S.CANCELLED)
    def stopped(self, **log: Any) -> None:
        """None of its requests was answered before it was cancelled."""

    @_arrow(state, [S.READY_TO_DELIVER], S.DELIVERING)
    def deliver(self, **log: Any) -> None:
        """Results are on their way to their destinations."""

    @_arrow(state, [S.DELIVERING], S.DELIVERED)
    def delivered(self, **log: Any) -> None:
        """Every result reached its destination or waits to be pulled."""

    @_arrow(state, [S.DELIVERING], S.PARTIALLY_DELIVERED)
    def partially_delivered(self, **log: Any) -> None:
        """Some results were delivered; others failed or could not be delivered."""

    @_arrow(state, [S.DELIVERING], S.DELIVERY_FAILED)
    def delivery_failed(self, **log: Any) -> None:
        """No result could be delivered."""

    @_arrow(state, [S.DELIVERED, S.PARTIALLY_DELIVERED, S.DELIVERY_FAILED], S.DELIVERING)
    def redeliver(self, **log: Any) -> None:
        """Results are sent again, because someone asked."""

    @_arrow(state, [S.BUILDING, S.UPLOADING, S.UPLOADED, S.WAITING_FOR_CAPACITY], S.CANCELLED)
    def cancel(self, **log: Any) -> None:
        """Stopped before the provider held it."""

    @_arrow(state, [S.SUBMITTING, S.PROCESSING], S.CANCELLING)
    def ask_to_cancel(self, **log: Any) -> None:
        """Stop asked for while the provider holds it, or may hold it."""

    @_arrow(
        state,
        [s for s in BatchState if s not in BATCH_ENDS or s in ("expired", "cancelled")],
        S.FAILED,
    )
    def fail(self, **log: Any) -> None:
        """It can't go on; the reason says why and a person may restart it."""

    @_arrow(state, [S.FAILED], S.UPLOADING)
    def restart(self, **log: Any) -> None:
        """Send what is unfinished again; finished answers are untouched."""


class RequestLifecycle(_Guarded):
    """The request's state and its arrows."""

    S = RequestState
    state = FSMField(default=S.PENDING.value, choices=S.choices, protected=True, max_length=16)
    state_changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True

    @_arrow(state, [S.PENDING], S.PROCESSING)
    def submitted(self, **log: Any) -> None:
        """The provider has it: its batch was accepted, or it is asked directly."""

    @_arrow(state, [S.PROCESSING], S.PROCESSED)
    def answered(self, **log: Any) -> None:
        """The provider answered well; the answer is stored."""

    @_arrow(state, [S.PENDING, S.PROCESSING], S.FAILED)
    def fail(self, **log: Any) -> None:
        """The provider's answer is an error, or there will be none."""

    @_arrow(state, [S.PENDING, S.PROCESSING], S.EXPIRED)
    def expire(self, **log: Any) -> None:
        """It ran out of windows or attempts without an answer."""

    @_arrow(state, [S.PENDING, S.PROCESSING, S.PROCESSED, S.DELIVERING], S.CANCELLED)
    def cancel(self, **log: Any) -> None:
        """An operator or its client no longer wants it."""

    @_arrow(state, [S.PROCESSING, S.FAILED, S.EXPIRED, S.CANCELLED], S.PENDING)
    def requeue(self, **log: Any) -> None:
        """Unanswered: back to be packed again, as the next attempt."""

    @_arrow(state, [S.PROCESSED], S.DELIVERING)
    def deliver(self, **log: Any) -> None:
        """A sender claimed it."""

    @_arrow(state, [S.DELIVERING], S.DELIVERED)
    def delivered(self, **log: Any) -> None:
        """The destination took it."""

    @_arrow(state, [S.DELIVERING], S.PROCESSED)
    def try_later(self, **log: Any) -> None:
        """This try failed and another is due."""

    @_arrow(state, [S.DELIVERING], S.DELIVERY_FAILED)
    def delivery_failed(self, **log: Any) -> None:
        """No further try is due; it waits for a person."""

    @_arrow(state, [S.DELIVERED, S.DELIVERY_FAILED], S.PROCESSED)
    def redeliver(self, **log: Any) -> None:
        """It has an answer and is to be sent again, because someone asked."""


Row = TypeVar("Row", bound=BatchLifecycle | RequestLifecycle)


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """One transition of a model's table: its name, where it starts, where it ends, what it means."""

    name: str
    sources: tuple[str, ...]
    target: str
    meaning: str


def arrows(model: type[models.Model]) -> tuple[Arrow, ...]:
    """Return every transition of ``model`` in the order of its definition."""
    field = cast(FSMField, model._meta.get_field("state"))
    order = {str(s): place for place, s in enumerate(dict(field.flatchoices))}
    defined = [name for base in reversed(model.__mro__) for name in vars(base)]
    found: dict[str, list[Any]] = {}
    for t in sorted(field.get_all_transitions(model), key=lambda t: defined.index(t.name)):
        found.setdefault(t.name, []).append(t)
    return tuple(
        Arrow(
            name=name,
            sources=tuple(sorted((t.source for t in ts), key=order.__getitem__)),
            target=ts[0].target,
            meaning=" ".join((getattr(model, name).__doc__ or "").split()),
        )
        for name, ts in found.items()
    )


def arrow(model: type[models.Model], name: str) -> Arrow:
    """Return one transition of ``model`` by name; KeyError when there is none."""
    return {a.name: a for a in arrows(model)}[name]


def log_text(reason: str, by: Actor) -> str:
    """Return a log row's description: the reason, and who, unless a user's name says it."""
    return reason if by.user_id else f"{reason} [by {by.name}]"


def move(
    row: Row,
    name: str,
    *,
    reason: str,
    by: Actor = CLOCK,
    now: datetime | None = None,
    **changes: Any,
) -> Row:
    """Take ``row`` along the transition ``name``, set ``changes`` on it, save and log, atomically.

    Raises Stale when the row's state (or its fence, when it has one) is no longer what we read, and
    TransitionNotAllowed when the table has no such arrow. ``row`` is up to date afterwards.
    """
    model = type(row)
    with transaction.atomic():
        current = model._base_manager.select_for_update().filter(pk=row.pk).first()
        known = (row.state, getattr(row, "fence", None))
        if current is None or (current.state, getattr(current, "fence", None)) != known:
            raise Stale(f"{model.__name__} {row.pk} is no longer {known[0]}")
        for field, value in {**changes, "state_changed_at": now or timezone.now()}.items():
            setattr(row, field, value)
        user = _user(by)
        getattr(row, name)(by=user, description=log_text(reason, by))
        row.save(update_fields=["state", "state_changed_at", *changes])
    return row


def _user(by: Actor) -> Any:
    if by.user_id is None:
        return None
    from django.contrib.auth import get_user_model

    return get_user_model()._base_manager.filter(pk=by.user_id).first()


def move_many(
    rows: models.QuerySet[Any],
    name: str,
    *,
    reason: str,
    by: Actor = CLOCK,
    now: datetime | None = None,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Take every row of the query that stands at a source of ``name`` to its target; return how many.

    One guarded statement and one insert into the log, in one transaction. ``changes`` are further
    fields to set (values or expressions). Rows in other states are left alone.
    """
    model = rows.model
    step = arrow(model, name)
    at = now or timezone.now()
    values = {"state": step.target, "state_changed_at": at, **(changes or {})}
    guarded = rows.filter(state__in=step.sources).values_list("id", "state")
    log = LogRows(
        model,
        transition=name,
        target=step.target,
        text=log_text(reason, by),
        user_id=by.user_id,
        at=at,
        using=rows.db,
    )
    with transaction.atomic(using=rows.db):
        return move_and_log(guarded, values, log, sources=step.sources)


__all__ = [
    "BAD_ENDS",
    "BATCH_ENDS",
    "CLOCK",
    "Actor",
    "Arrow",
    "BatchLifecycle",
    "BatchState",
    "RequestLifecycle",
    "RequestState",
    "Stale",
    "TransitionNotAllowed",
    "arrow",
    "arrows",
    "log_text",
    "move",
    "move_many",
    "outcome_of",
]
