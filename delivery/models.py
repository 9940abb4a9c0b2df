"""Attempts at delivery, the rows of the RabbitMQ intake, and the leases of clients that pull.

Events and what belongs to them stand in `event_models`, replays in `replay_models`.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from batching.models import Destination, Project, Request
from delivery.event_models import (
    Event,
    EventAttempt,
    EventDelivery,
    EventSubscription,
    PendingEvent,
)
from delivery.replay_models import Replay
from delivery.tries import Try


class Attempt(Try):
    """One try at delivering one result to one destination."""

    request = models.ForeignKey(
        Request, models.CASCADE, related_name="delivery_attempts", db_index=False
    )
    destination = models.ForeignKey(
        Destination, models.CASCADE, related_name="attempts", db_index=False
    )

    class Meta:
        indexes = [
            # The attempts of a request, newest first.
            models.Index(fields=["request", "-id"], name="attempt_request"),
            # The attempts of a destination, newest first.
            models.Index(fields=["destination", "-id"], name="attempt_destination"),
        ]


class Rejection(models.Model):
    """A message of the input queue that was not taken, and why. Written once.

    The message itself is where the queue's dead letter exchange put it; here is its beginning.
    """

    received_at = models.DateTimeField(default=timezone.now)
    queue = models.CharField(max_length=255)
    project_name = models.CharField(max_length=255)
    """As the message named it; there may be no such project."""
    message_id = models.CharField(max_length=255, blank=True)
    code = models.CharField(max_length=100)
    """Of the first fault."""
    detail = models.CharField(max_length=500)
    """Of the first fault."""
    faults = models.TextField()
    """The first twenty, one a line."""
    fault_count = models.PositiveIntegerField(default=1)
    taken_count = models.PositiveIntegerField(default=0)
    """Requests of the same message that were right, and were stored."""
    size_bytes = models.PositiveIntegerField()
    sha256 = models.CharField("SHA-256", max_length=64)
    beginning = models.TextField()
    """The first 2 kB; what is no visible character is written as an escape."""

    class Meta:
        indexes = [
            # A message that came again: was it kept already?
            models.Index(fields=["sha256"], name="rejection_sha256"),
        ]

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"[:80]


class IntakeStatus(models.Model):
    """How the consumer of an input queue is, in its own words; one row for each queue."""

    class State(models.TextChoices):
        """What it does."""

        CONSUMING = "consuming"
        PAUSED = "paused"
        QUEUE_MISSING = "queue_missing"
        DISCONNECTED = "disconnected"
        STOPPED = "stopped"

    queue = models.CharField(max_length=255)
    state = models.CharField(max_length=20, choices=State.choices)
    detail = models.CharField(max_length=300, blank=True)
    since = models.DateTimeField()
    seen_at = models.DateTimeField()
    """Its last sign of life, some seconds old while it lives."""

    class Meta:
        verbose_name_plural = "intake status"
        constraints = [models.UniqueConstraint(fields=["queue"], name="intakestatus_queue")]

    def __str__(self) -> str:
        return f"{self.queue}: {self.state}"


class PullGroup(models.Model):
    """Consumers of a project that share its results among them; each group gets every result.

    The cursor is how far results were leased: everything behind it has a lease or is done with.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True, blank=True)
    """Of the last result leased; None: none was."""
    request_id = models.BigIntegerField(default=0)
    """Row id of the last result leased; no foreign key, for a cursor outlives its row."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="pullgroup_name"),
        ]

    def __str__(self) -> str:
        return self.name


class Lease(models.Model):
    """A result that a group has in hand: leased until some time, or to be leased again. Gone when it is done."""

    group = models.ForeignKey(PullGroup, models.CASCADE, related_name="leases", db_index=False)
    request = models.ForeignKey(Request, models.CASCADE, related_name="+")
    attempt = models.PositiveSmallIntegerField()
    """Of the request: one that was retried is another result."""
    token = models.CharField(max_length=40)
    """Of the call that leased it last: the fence for whoever had it before."""
    free_at = models.DateTimeField()
    """When it may be leased again."""
    leased_count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "request"], name="lease_request"),
        ]
        indexes = [
            # What may be leased again, longest free first.
            models.Index(fields=["group", "free_at"], name="lease_free"),
        ]

    def __str__(self) -> str:
        return f"lease {self.token} of request {self.request_id}"


class DestinationHealth(models.Model):
    """How a destination fares and how fast it may be sent to; every worker reads and writes this one row.

    Made on first use. Its lock orders what senders are given of one destination, and what is recorded of it.
    ``pacing`` says what the figures mean and how they change.
    """

    destination = models.OneToOneField(
        Destination, models.CASCADE, primary_key=True, related_name="health"
    )
    window = models.FloatField(null=True)
    is_window_used = models.BooleanField(default=False)
    slowed_at = models.DateTimeField(null=True)
    recent = models.JSONField(default=list)
    """Lists of slice, tries and failures: the last five minutes."""
    openings = models.PositiveIntegerField(default=0)
    open_until = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    last_failure_at = models.DateTimeField(null=True)
    last_failure = models.CharField(max_length=200, blank=True)
    failing_since = models.DateTimeField(null=True)
    failures_in_row = models.PositiveIntegerField(default=0)
    latency_s = models.FloatField(null=True)
    tokens = models.FloatField(null=True)
    tokens_at = models.DateTimeField(null=True)
    senders = models.JSONField(default=dict)
    """Sender to the tries that it may have in flight, and the epoch second at which that ends."""
    alerted_at = models.DateTimeField(null=True)
    """When a person was told last that results were given up."""

    class Meta:
        verbose_name_plural = "destination health"

    def __str__(self) -> str:
        return f"health of destination {self.destination_id}"


__all__ = [
    "Attempt",
    "DestinationHealth",
    "Event",
    "EventAttempt",
    "EventDelivery",
    "EventSubscription",
    "IntakeStatus",
    "Lease",
    "PendingEvent",
    "PullGroup",
    "Rejection",
    "Replay",
]
