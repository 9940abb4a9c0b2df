"""Events: that a batch or a submission ended, who wants to know, and how telling them went.

What ended is noted as a PendingEvent in the transaction that ends it; from that an Event is made, its bytes
written once, with one EventDelivery for each destination that subscribed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import partial

from django.db import models
from django.utils import timezone

from batching.models import Batch, Destination, Project, Submission
from batching.models.keys import new_key
from delivery.tries import Try

new_event_key = partial(new_key, "evt")
new_subscription_key = partial(new_key, "evs")


class EventType(models.TextChoices):
    """What a project can be told of."""

    BATCH_COMPLETED = "batch.completed", "batch.completed: all its requests are settled"
    BATCH_FAILED = "batch.failed", "batch.failed: it can't go on, or all its requests failed"
    BATCH_EXPIRED = "batch.expired", "batch.expired: the provider's window closed before its end"
    BATCH_CANCELLED = "batch.cancelled", "batch.cancelled: it was stopped"
    SUBMISSION_COMPLETED = (
        "submission.completed",
        "submission.completed: each request of an upload or a client's batch has its end",
    )


class EventSubscriptionQuerySet(models.QuerySet["EventSubscription"]):
    """Questions about subscriptions."""

    def wanting(self, types: Collection[str], **of: object) -> list[EventSubscription]:
        """Return those that want one of the types. There are few: their types are read, not searched."""
        present = {"destination__deleted_at__isnull": True}
        rows = self.filter(**present, **of).select_related("destination")
        return [row for row in rows if not set(types).isdisjoint(row.types)]


class EventSubscription(models.Model):
    """A destination that is told of a project's events."""

    key = models.CharField(max_length=40, default=new_subscription_key, editable=False)
    destination = models.OneToOneField(
        Destination, models.CASCADE, related_name="event_subscription"
    )
    types = models.JSONField(default=list)
    """Values of EventType, sorted."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = EventSubscriptionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="eventsubscription_key")]

    def __str__(self) -> str:
        return f"{', '.join(self.types)} → {self.destination}"[:120]


class PendingEvent(models.Model):
    """A batch that ended, or a submission that will: its event is to be made. Gone once it is."""

    batch = models.ForeignKey(Batch, models.CASCADE, null=True, related_name="+")
    submission = models.ForeignKey(Submission, models.CASCADE, null=True, related_name="+")
    transition = models.CharField(max_length=40, blank=True)
    """That ended the batch."""
    occurred_at = models.DateTimeField(default=timezone.now)
    look_at = models.DateTimeField(default=timezone.now)
    """When to look whether it has ended."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["submission"],
                name="pendingevent_submission",
                condition=models.Q(submission__isnull=False),
            ),
        ]
        # The sweep that makes events.
        indexes = [models.Index(fields=["look_at"], name="pendingevent_look_at")]

    def __str__(self) -> str:
        return f"pending event {self.pk}"


class Event(models.Model):
    """Something that happened to what one project sent. Written once."""

    key = models.CharField(max_length=40, default=new_event_key, editable=False)
    """``webhook-id`` and AMQP ``message_id``: the same over all tries and replays."""
    project = models.ForeignKey(Project, models.CASCADE, related_name="events")
    type = models.CharField(max_length=40, choices=EventType.choices)
    subject = models.CharField(max_length=40)
    """Public key of the batch or the submission."""
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now)
    payload = models.BinaryField()
    """The JSON that is sent, exactly these bytes; ids, counts and links, no prompt and no answer."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="event_key")]
        # The events of a batch or a submission.
        indexes = [models.Index(fields=["subject"], name="event_subject")]

    def __str__(self) -> str:
        return f"{self.type} {self.subject}"


class EventDeliveryQuerySet(models.QuerySet["EventDelivery"]):
    """Questions about deliveries of events."""

    def due(self, now: datetime) -> EventDeliveryQuerySet:
        """Those to be sent now to destinations that may be sent to, longest due first."""
        is_open = Destination.objects.open().filter(pk=models.OuterRef("destination"))
        return self.filter(models.Exists(is_open), due_at__lte=now).order_by("due_at", "pk")


class EventDelivery(models.Model):
    """One event on its way to one destination.

    ``due_at`` set: it is to be sent then; a sender claims it by moving that time to the end of its lease
    and raising ``fence``. Not set: it was delivered or given up.
    """

    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries", db_index=False)
    destination = models.ForeignKey(
        Destination, models.CASCADE, related_name="event_deliveries", db_index=False
    )
    due_at = models.DateTimeField(null=True)
    fence = models.PositiveIntegerField(default=0)
    tries = models.PositiveSmallIntegerField(default=0)
    """Since it last became due; the retry schedule counts these."""
    replays = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    dead_at = models.DateTimeField(null=True)
    """When it was given up; waits for a person."""

    objects = EventDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "event deliveries"
        permissions = [("operate_eventdelivery", "Can send events again")]
        constraints = [
            models.UniqueConstraint(fields=["event", "destination"], name="eventdelivery_place")
        ]
        indexes = [
            # What is due, by destination.
            models.Index(
                fields=["destination", "due_at"],
                condition=models.Q(due_at__isnull=False),
                name="eventdelivery_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} → {self.destination}"[:120]

    @property
    def standing(self) -> str:
        """How it is, in one word: delivered, dead, or waiting."""
        if self.due_at is not None:
            return "waiting"
        return "delivered" if self.delivered_at else "dead"


class EventAttempt(Try):
    """One try at telling one destination of one event."""

    delivery = models.ForeignKey(EventDelivery, models.CASCADE, related_name="attempts")

    class Meta:
        ordering = ["pk"]
