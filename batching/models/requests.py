"""Requests: the small hot row, the body and the answers beside it, and the submission it came in."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone

from batching.lifecycle import BAD_ENDS, RequestLifecycle, RequestState
from batching.models.accounts import Lane
from batching.models.batches import Batch
from batching.models.keys import new_request_key, new_submission_key
from batching.models.projects import ApiKey, Destination, Project

PRIORITY_RANGE = (-100, 100)


class Submission(models.Model):
    """Requests that a client sent together; they may end up in many batches."""

    key = models.CharField(max_length=40, default=new_submission_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="submissions", db_index=False)
    api_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When the whole upload had been read."""
    accepted = models.PositiveIntegerField(default=0)
    duplicates = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="submission_key")]
        indexes = [models.Index(fields=["project", "-id"], name="submission_project")]

    def __str__(self) -> str:
        return self.key


class RequestQuerySet(models.QuerySet["Request"]):
    """Questions about requests."""

    def unpacked(self) -> RequestQuerySet:
        """Pending requests that no batch holds yet."""
        return self.filter(state=RequestState.PENDING, batch__isnull=True)

    def undecided(self) -> RequestQuerySet:
        """Requests that still wait for their provider."""
        return self.filter(state__in=[RequestState.PENDING, RequestState.PROCESSING])

    def due(self, now: datetime) -> RequestQuerySet:
        """Results to be sent now, longest due first."""
        return self.filter(due_at__lte=now).order_by("due_at")


class Request(RequestLifecycle):
    """One LLM call that a client wants answered. Small on purpose: its bytes are in other rows.

    Delivery is driven by ``due_at``: set, a result (good or bad end) is to be sent then; a sender
    claims it by moving ``due_at`` to the end of its lease and raising ``fence``.
    """

    key = models.CharField(max_length=40, default=new_request_key, editable=False)
    """Our name for it: the ``custom_id`` on the provider's wire, and the id of its deliveries."""
    project = models.ForeignKey(Project, models.CASCADE, related_name="requests", db_index=False)
    custom_id = models.CharField(max_length=512)
    fingerprint = models.CharField(max_length=64, editable=False)
    """SHA-256 over endpoint and body: tells a request sent twice from another one of the same id."""
    lane = models.ForeignKey(Lane, models.PROTECT, related_name="requests", db_index=False)
    batch = models.ForeignKey(
        Batch, models.SET_NULL, null=True, blank=True, related_name="requests", db_index=False
    )
    submission = models.ForeignKey(
        Submission, models.SET_NULL, null=True, blank=True, related_name="requests", db_index=False
    )
    destination = models.ForeignKey(
        Destination, models.PROTECT, null=True, blank=True, related_name="requests", db_index=False
    )
    """None: the client pulls."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    priority = models.SmallIntegerField(default=0)
    seal_by = models.DateTimeField()
    """Its batch is to be sealed by then, full or not."""
    deliver_by = models.DateTimeField(null=True, blank=True)
    size_bytes = models.PositiveIntegerField()
    """Of its line in the input file."""
    token_estimate = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField(default=1)
    """Which sending this is; an answer belongs to one attempt."""

    # What came back.
    settled_at = models.DateTimeField(null=True, blank=True)
    """When its end, good or bad, was known."""
    error_code = models.CharField(max_length=100, blank=True)
    error_message = models.CharField(max_length=500, blank=True)

    # Delivery of its result.
    due_at = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    tries = models.PositiveSmallIntegerField(default=0)
    """Tries since it last became due; the retry schedule counts these."""
    replays = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True, blank=True)
    dead_at = models.DateTimeField(null=True, blank=True)
    """When delivery was given up; waits for a person."""

    objects = RequestQuerySet.as_manager()

    class Meta:
        permissions = [
            ("operate_request", "Can cancel, retry and redeliver requests"),
            ("view_payload", "Can read request bodies and answers"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="request_key"),
            models.UniqueConstraint(fields=["project", "custom_id"], name="request_custom_id"),
        ]
        indexes = [
            # packing: what is to be packed, in packing order.
            models.Index(
                fields=["lane", "-priority", "id"],
                condition=models.Q(state="pending", batch__isnull=True),
                name="request_unpacked",
            ),
            # submission (file building), collection (settling), counts of a batch by state.
            models.Index(fields=["batch", "state", "id"], name="request_batch"),
            # dispatch: what is due, by destination.
            models.Index(
                fields=["destination", "due_at"],
                condition=models.Q(due_at__isnull=False),
                name="request_due",
            ),
            # Lists of a project, newest first, whole and by state.
            models.Index(fields=["project", "-id"], name="request_project"),
            models.Index(fields=["state", "-id"], name="request_state"),
            # Results for clients that pull, in the order in which they were settled.
            models.Index(
                fields=["project", "settled_at", "id"],
                condition=models.Q(settled_at__isnull=False),
                name="request_settled",
            ),
            # Lists of a submission.
            models.Index(
                fields=["submission", "id"],
                condition=models.Q(submission__isnull=False),
                name="request_submission",
            ),
        ]

    def __str__(self) -> str:
        return self.custom_id[:80]

    @property
    def outcome(self) -> str:
        """The word a client is told: succeeded, failed, expired or cancelled; empty while open."""
        if self.state in BAD_ENDS:
            return str(self.state)
        if self.state in (RequestState.PENDING, RequestState.PROCESSING):
            return ""
        return "succeeded"


class RequestBody(models.Model):
    """What the client sent, as the bytes that came. Written once."""

    request = models.OneToOneField(
        Request, models.CASCADE, primary_key=True, related_name="payload"
    )
    body = models.BinaryField()
    metadata = models.BinaryField(default=b"{}")
    """The client's own pairs, as JSON."""

    class Meta:
        verbose_name_plural = "request bodies"

    def __str__(self) -> str:
        return f"body of request {self.pk}"


class Answer(models.Model):
    """The provider's line for one attempt at one request, byte for byte. Written once."""

    request = models.ForeignKey(Request, models.CASCADE, related_name="answers", db_index=False)
    attempt = models.PositiveSmallIntegerField()
    batch = models.ForeignKey(Batch, models.SET_NULL, null=True, related_name="+", db_index=False)
    status_code = models.IntegerField(null=True)
    line = models.BinaryField()
    input_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    reasoning_tokens = models.PositiveIntegerField(null=True)
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["request", "attempt"], name="answer_of_attempt")
        ]

    def __str__(self) -> str:
        return f"answer to request {self.request_id}, attempt {self.attempt}"
