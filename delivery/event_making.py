"""Notes of what ended become events: counted by project, written once, due at every destination that subscribed.

The clock calls ``make_due``. Each note is one transaction: its events are made and it is gone, or neither. A
submission that has not ended yet is looked at again later, the older the rarer. Nothing here is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django_fsm_log.models import StateLog

from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Batch, Request, Submission
from delivery.event_models import (
    Event,
    EventDelivery,
    EventSubscription,
    EventType,
    PendingEvent,
)
from delivery.event_sources import FIRST_LOOK

logger = logging.getLogger(__name__)

_RUN_S: Final = 20.0
_LAST_LOOK: Final = timedelta(minutes=5)
_BROKEN_OFF_AFTER: Final = timedelta(days=1)
"""An upload that has not been read to its end by then never will be."""
_GOOD = [
    s for s in RequestState if s not in (*BAD_ENDS, RequestState.PENDING, RequestState.PROCESSING)
]
_HOW: Final = {
    "complete": EventType.BATCH_COMPLETED,
    "expire": EventType.BATCH_EXPIRED,
    "cancelled_by_provider": EventType.BATCH_CANCELLED,
}
_BY_TRANSITION: Final = {
    "fail": EventType.BATCH_FAILED,
    "stopped": EventType.BATCH_CANCELLED,
    "cancel": EventType.BATCH_CANCELLED,
    "cancelled_by_provider": EventType.BATCH_CANCELLED,
}


def make_due(now: datetime) -> int:
    """Make the events of what ended; return how many notes were looked at."""
    until, looked_at = time.monotonic() + _RUN_S, 0
    while time.monotonic() < until and _make_next(now):
        looked_at += 1
    return looked_at


@transaction.atomic
def _make_next(now: datetime) -> bool:
    waiting = PendingEvent.objects.select_for_update(skip_locked=True, of=("self",))
    note = waiting.filter(look_at__lte=now).order_by("look_at", "pk").first()
    if note is None:
        return False
    if note.submission is not None and not _has_ended(note.submission, now):
        age = now - note.submission.created_at
        note.look_at = now + min(max(FIRST_LOOK, age / 10), _LAST_LOOK)
        note.save(update_fields=["look_at"])
        return True
    if note.batch is not None:
        _tell_of_batch(note.batch, note, now)
    elif note.submission is not None:
        _tell_of_submission(note.submission, now)
    note.delete()
    return True


def _has_ended(submission: Submission, now: datetime) -> bool:
    """Tell whether each of its requests has its end, and no more will come."""
    if submission.kind == Submission.Kind.OPENAI:
        return submission.is_final
    is_read = submission.finished_at or now - submission.created_at > _BROKEN_OFF_AFTER
    return bool(is_read) and not _requests_of(submission).undecided().exists()


def _requests_of(submission: Submission) -> Any:
    return Request.objects.filter(submission=submission)


def _tell_of_batch(batch: Batch, note: PendingEvent, now: datetime) -> None:
    type_ = _BY_TRANSITION.get(note.transition) or _how_it_ended(batch)
    for project_id, counts in _by_project(Request.objects.filter(batch=batch)):
        subscriptions = _wanting(type_, project_id)
        if subscriptions:
            data = _batch_data(batch, counts)
            _make(type_, batch.key, note.occurred_at, data, subscriptions, now)


def _how_it_ended(batch: Batch) -> EventType:
    """Read from the log how the provider ended a batch that was settled."""
    log = StateLog.objects.filter(
        content_type=ContentType.objects.get_for_model(Batch), object_id=batch.pk
    )
    last = log.filter(transition__in=_HOW).order_by("-pk").values_list("transition", flat=True)
    return _HOW[last.first() or "complete"]


def _tell_of_submission(submission: Submission, now: datetime) -> None:
    type_ = EventType.SUBMISSION_COMPLETED
    subscriptions = _wanting(type_, submission.project_id)
    if not subscriptions:
        return
    rows = _requests_of(submission)
    counts = dict(_by_project(rows)).get(submission.project_id) or dict.fromkeys(_COUNTS, 0)
    last = rows.filter(settled_at__isnull=False).order_by("-settled_at")
    ended_at = last.values_list("settled_at", flat=True).first() or submission.finished_at or now
    data = _submission_data(submission, counts)
    _make(type_, submission.key, ended_at, data, subscriptions, now)


def _wanting(type_: str, project_id: int) -> list[EventSubscription]:
    return EventSubscription.objects.wanting([type_], destination__project=project_id)


_COUNTS: Final = {
    "total": Q(),
    "succeeded": Q(state__in=_GOOD),
    "failed": Q(state=RequestState.FAILED),
    "expired": Q(state=RequestState.EXPIRED),
    "cancelled": Q(state=RequestState.CANCELLED),
}


def _by_project(rows: QuerySet[Request]) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield each project's requests among these, counted by how they ended."""
    counted = {name: Count("pk", filter=which) for name, which in _COUNTS.items()}
    by_project = rows.order_by().values("project_id").annotate(**counted)
    for project_id, *counts in by_project.values_list("project_id", *_COUNTS):
        yield project_id, dict(zip(_COUNTS, counts, strict=True))


def _batch_data(batch: Batch, counts: dict[str, int]) -> dict[str, Any]:
    base = settings.BATCHER_PUBLIC_URL or settings.BATCHER_URL
    return {
        "id": batch.key,
        "state": batch.state,
        "account": batch.lane.account.name,
        "model": batch.lane.model,
        "url": batch.lane.endpoint,
        "provider_batch_id": batch.provider_batch_id or None,
        "reason": batch.last_error[:300] if batch.state == "failed" else "",
        "requests": counts,
        "links": {
            "self": f"{base}/api/batches/{batch.key}",
            "requests": f"{base}/api/requests?batch={batch.key}",
        },
    }


def _submission_data(submission: Submission, counts: dict[str, int]) -> dict[str, Any]:
    base = settings.BATCHER_PUBLIC_URL or settings.BATCHER_URL
    is_batch = submission.kind == Submission.Kind.OPENAI
    return {
        "id": submission.key,
        "status": _status(submission),
        "batch": f"batch_{submission.key.removeprefix('sub_')}" if is_batch else None,
        "created_at": _time(submission.created_at),
        "accepted": submission.accepted,
        "duplicates": submission.duplicates,
        "rejected": submission.rejected,
        "requests": counts,
        "links": {
            "self": f"{base}/api/submissions/{submission.key}",
            "results": f"{base}/api/submissions/{submission.key}/results",
        },
    }


def _status(submission: Submission) -> str:
    if submission.failed_at:
        return "failed"
    if submission.cancelled_at:
        return "cancelled"
    return "completed" if submission.finished_at else "broken_off"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _make(
    type_: str,
    subject: str,
    occurred_at: datetime,
    data: dict[str, Any],
    subscriptions: list[EventSubscription],
    now: datetime,
) -> None:
    payload = {"type": type_, "timestamp": _time(occurred_at), "data": data}
    event = Event.objects.create(
        project_id=subscriptions[0].destination.project_id,
        type=type_,
        subject=subject,
        occurred_at=occurred_at,
        payload=msgspec.json.encode(payload),
    )
    EventDelivery.objects.bulk_create(
        EventDelivery(event=event, destination=s.destination, due_at=now) for s in subscriptions
    )
    facts = {"event": event.key, "type": str(type_), "subject": subject}
    logger.info("event made", extra=facts)
