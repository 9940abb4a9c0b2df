"""What becomes an event is noted here, in the transaction in which it happens.

Batching does not know that anyone is told: Django's signals reach us when a batch moves and when a submission
is made, and a note (PendingEvent) is written beside it, so neither stands without the other. Nothing is
noted that nobody subscribed to. `event_making` turns notes into events. Why so: docs/decisions/0007-events.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Exists, OuterRef, Q
from django.db.models.signals import post_save
from django.utils import timezone
from django_fsm.signals import post_transition

from batching.models import Batch, Request, Submission
from delivery.event_models import EventSubscription, EventType, PendingEvent

_T: Final = EventType
_ENDS: Final[dict[str, tuple[str, ...]]] = {
    "settled": (_T.BATCH_COMPLETED, _T.BATCH_EXPIRED, _T.BATCH_CANCELLED),
    "stopped": (_T.BATCH_CANCELLED,),
    "cancel": (_T.BATCH_CANCELLED,),
    "cancelled_by_provider": (_T.BATCH_CANCELLED,),
    "fail": (_T.BATCH_FAILED,),
}
"""Transitions that end a batch for its clients, and what they may be told of then."""
FIRST_LOOK: Final = timedelta(seconds=2)
_OPEN_UPLOADS: Final = timedelta(days=1)
_WATCHED_AT_ONCE: Final = 10_000


def listen() -> None:
    """Hear of batches that move, submissions that are made, and subscriptions that begin."""
    post_transition.connect(_on_move, sender=Batch, dispatch_uid="event of batch")
    post_save.connect(_on_submission, sender=Submission, dispatch_uid="event of submission")
    post_save.connect(_on_subscription, sender=EventSubscription, dispatch_uid="subscribed")


def _on_move(instance: Batch, name: str, **_signal: Any) -> None:
    types = _ENDS.get(name)
    if types is None or (name == "cancelled_by_provider" and instance.next_attempt_at is not None):
        return  # the latter goes on: its files are read first
    if EventSubscription.objects.wanting(types):
        at = instance.state_changed_at
        PendingEvent.objects.create(batch=instance, transition=name, occurred_at=at, look_at=at)


def _on_submission(instance: Submission, *, created: bool, **_signal: Any) -> None:
    place = {"destination__project": instance.project_id}
    if created and EventSubscription.objects.wanting([_T.SUBMISSION_COMPLETED], **place):
        now = timezone.now()
        PendingEvent.objects.create(submission=instance, occurred_at=now, look_at=now + FIRST_LOOK)


def _on_subscription(instance: EventSubscription, **_signal: Any) -> None:
    if _T.SUBMISSION_COMPLETED in instance.types:
        _watch_open(instance.destination.project_id, timezone.now())


def _watch_open(project_id: int, now: datetime) -> None:
    """Note the submissions that are under way when a project begins to ask for them."""
    still_open = Exists(Request.objects.undecided().filter(submission=OuterRef("pk")))
    is_read = Q(finished_at__isnull=False) | Q(created_at__lt=now - _OPEN_UPLOADS)
    rows = Submission.objects.filter(still_open | ~is_read, project=project_id).order_by("-pk")
    PendingEvent.objects.bulk_create(
        (
            PendingEvent(submission_id=pk, occurred_at=now, look_at=now + FIRST_LOOK)
            for pk in rows.values_list("pk", flat=True)[:_WATCHED_AT_ONCE]
        ),
        ignore_conflicts=True,
    )
