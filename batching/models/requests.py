"""Requests: the small hot row, the body and the answers beside it, and the submission it came in."""

from __future__ import annotations

from datetime import datetime

from django.db import connections, models
from django.utils import timezone

from batching.lifecycle import RequestLifecycle, RequestState, outcome_of
from batching.models.accounts import Lane
from batching.models.batches import Batch
from batching.models.files import ClientFile
from batching.models.keys import new_request_key, new_submission_key
from batching.models.projects import ApiKey, Destination, Project

PRIORITY_RANGE = (-100, 100)
GIVEN_UP = models.Q(dead_at__isnull=False, discarded_at__isnull=True)
"""A dead letter: its delivery was given up, and it waits for a person."""
NOT_GIVEN_UP: dict[str, None] = {"dead_at": None, "dead_cause": None, "discarded_at": None}
"""Changes that make a result one that may be sent again."""


class SubmissionQuerySet(models.QuerySet["Submission"]):
    """Questions about submissions."""

    def client_batches(self, project: Project, kind: str) -> SubmissionQuerySet:
        """What a project sent as batches through one of the doors, and did not delete."""
        return self.filter(project=project, kind=kind, deleted_at__isnull=True)

    def due(self, now: datetime) -> SubmissionQuerySet:
        """Client batches whose next step may be tried now, longest due first."""
        return self.filter(next_attempt_at__lte=now).order_by("next_attempt_at", "pk")


class Submission(models.Model):
    """Requests that a client sent together; they may end up in many batches.

    A client's own batch (``kind`` openai or anthropic) names a file and is read from it later; its times say
    how far it is. Its next step (to be read, to be watched until its last answer) is due at ``next_attempt_at``,
    which a worker claims like a batch's: by moving it ahead and raising ``fence``.
    """

    class Kind(models.TextChoices):
        """Through which door it came."""

        UPLOAD = "upload", "bulk upload"
        OPENAI = "openai", "batch (OpenAI API)"
        ANTHROPIC = "anthropic", "batch (Anthropic API)"

    key = models.CharField(max_length=40, default=new_submission_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="submissions", db_index=False)
    api_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, editable=False)
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.UPLOAD)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When the whole upload had been read."""
    accepted = models.PositiveIntegerField(default=0)
    duplicates = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)

    # What a client's batch asks for.
    endpoint = models.CharField(max_length=100, blank=True)
    input_file = models.ForeignKey(
        ClientFile, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    completion_window = models.CharField(max_length=16, blank=True)
    metadata = models.JSONField(null=True, blank=True)
    output_expires_after_s = models.PositiveIntegerField(null=True, blank=True)
    delivery_config = models.JSONField(null=True, blank=True)
    """Where results go whose line names no place, as it was sent; None: they are pulled."""

    # How far a client's batch is.
    in_progress_at = models.DateTimeField(null=True, blank=True)
    """When all its lines were stored."""
    finalizing_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    cancelling_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    """Its completion window's end; we go on after it."""
    line_errors = models.JSONField(default=list, blank=True)
    """Why it failed: objects with code, message, param and line."""
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    """None: nothing is left to do."""
    fence = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    """When its client put it out of sight; its requests stay."""

    # What became of it, frozen when it ends.
    completed_count = models.PositiveIntegerField(null=True, blank=True)
    failed_count = models.PositiveIntegerField(null=True, blank=True)
    """Bad ends of all kinds; those below among them."""
    cancelled_count = models.PositiveIntegerField(null=True, blank=True)
    expired_count = models.PositiveIntegerField(null=True, blank=True)
    input_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cached_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    output_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    reasoning_tokens = models.PositiveBigIntegerField(null=True, blank=True)

    objects = SubmissionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key"], name="submission_key")]
        indexes = [
            models.Index(fields=["project", "-id"], name="submission_project"),
            # Lists of a project's client batches.
            models.Index(fields=["project", "kind", "-id"], name="submission_kind"),
            # SubmissionQuerySet.due: the sweep over client batches.
            models.Index(
                fields=["next_attempt_at"],
                condition=models.Q(next_attempt_at__isnull=False),
                name="submission_due",
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def is_final(self) -> bool:
        """True when a client's batch has ended."""
        return self.ended_at is not None

    @property
    def ended_at(self) -> datetime | None:
        """When a client's batch ended, well or badly."""
        return self.completed_at or self.failed_at or self.cancelled_at


class RequestQuerySet(models.QuerySet["Request"]):
    """Questions about requests."""

    def unpacked(self) -> RequestQuerySet:
        """Pending requests that no batch holds yet."""
        return self.filter(state=RequestState.PENDING, batch__isnull=True)

    def with_deadline(self) -> RequestQuerySet:
        """Pending requests that are wanted by some time."""
        return self.filter(state=RequestState.PENDING, deliver_by__isnull=False)

    def undecided(self) -> RequestQuerySet:
        """Requests that still wait for their provider."""
        return self.filter(state__in=[RequestState.PENDING, RequestState.PROCESSING])

    def custom_id_begins(self, beginning: str) -> RequestQuerySet:
        """Requests whose custom_id begins so, case by case, in words that each database's index understands."""
        if connections[self.db].vendor == "postgresql":
            return self.filter(custom_id__startswith=beginning)  # a range by itself
        # SQLite's LIKE uses no index and knows no case. Text there is in the order of its bytes, so a range it is.
        return self.filter(custom_id__gte=beginning, custom_id__lt=beginning + chr(0x10FFFF))

    def given_up(self) -> RequestQuerySet:
        """Dead letters: what was given up and waits for a person."""
        return self.filter(GIVEN_UP)

    def in_submission_order(self, submission_id: int) -> RequestQuerySet:
        """A submission's requests by rising id, in words that leave its index as the only way.

        Asked for the first of ``submission_id = 7`` by id, PostgreSQL may walk along the primary key until it comes to one.
        """
        mine = self.filter(submission_id__gte=submission_id, submission_id__lte=submission_id)
        return mine.order_by("submission_id", "id")

    def span_of_submission(self, submission_id: int) -> tuple[int, int]:
        """Return the lowest and the highest id of a submission's requests; (1, 0) when it has none."""
        ids = self.in_submission_order(submission_id).values_list("pk", flat=True)
        return ids.first() or 1, ids.last() or 0

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
    scope = models.CharField(max_length=40, blank=True, default="", editable=False)
    """Where its custom_id is unique: empty, in its project; in a client's batch, that submission's key."""
    fingerprint = models.CharField(max_length=64, editable=False)
    """SHA-256 over endpoint and body: tells a request sent twice from another one of the same id."""
    lane = models.ForeignKey(Lane, models.PROTECT, related_name="requests", db_index=False)
    batch = models.ForeignKey(
        Batch, models.SET_NULL, null=True, blank=True, related_name="requests", db_index=False
    )
    came_from = models.ForeignKey(
        Batch,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        editable=False,
    )
    """The last batch that held it and did not answer it well, once it was sent back to be packed again."""
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
    """Of its input, margin included."""
    is_token_exact = models.BooleanField(default=False, db_default=False)
    """Counted with the model's own tokenizer; else guessed."""
    attempt = models.PositiveSmallIntegerField(default=1)
    """Which sending this is; an answer belongs to one attempt."""

    # What came back.
    settled_at = models.DateTimeField(null=True, blank=True)
    """When its end, good or bad, was known."""
    error_code = models.CharField(max_length=100, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    cost_nano = models.PositiveBigIntegerField(null=True, blank=True)
    """What its answers cost so far, all attempts together, in nano-dollars; None: unknown."""

    # Delivery of its result.
    due_at = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    tries = models.PositiveSmallIntegerField(default=0)
    """Tries since it last became due; the retry schedule counts these."""
    replays = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True, blank=True)
    dead_at = models.DateTimeField(null=True, blank=True)
    """When delivery was given up; waits for a person."""
    dead_cause = models.CharField(max_length=60, null=True, blank=True)  # noqa: DJ001  # added without writing rows
    """How its last try ended, as ``timeout`` or ``http_status:503``; None: not given up, or not known."""
    discarded_at = models.DateTimeField(null=True, blank=True)
    """When a person said that nobody has to care for it any more, though it was given up."""

    objects = RequestQuerySet.as_manager()

    class Meta:
        permissions = [
            ("operate_request", "Can cancel, retry and redeliver requests"),
            ("view_payload", "Can read request bodies and answers"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="request_key"),
            # Also serves every search by custom_id: exact, or by its beginning.
            models.UniqueConstraint(
                fields=["project", "custom_id", "scope"], name="request_custom_id"
            ),
        ]
        indexes = [
            # packing: what is to be packed, in packing order.
            models.Index(
                fields=["lane", "-priority", "id"],
                condition=models.Q(state="pending", batch__isnull=True),
                name="request_unpacked",
            ),
            # deadlines, packing: whose time is near or over, lane by lane.
            models.Index(
                fields=["lane", "deliver_by"],
                condition=models.Q(state="pending", deliver_by__isnull=False),
                name="request_deadline",
            ),
            # submission (file building), collection (settling), counts of a batch by state.
            models.Index(fields=["batch", "state", "id"], name="request_batch"),
            # A batch's page: where those went that it did not answer.
            models.Index(
                fields=["came_from", "batch"],
                condition=models.Q(came_from__isnull=False),
                name="request_came_from",
            ),
            # dispatch: what is due, by destination.
            models.Index(
                fields=["destination", "due_at"],
                condition=models.Q(due_at__isnull=False),
                name="request_due",
            ),
            # What was given up and waits for a person: by destination and cause, oldest first.
            models.Index(
                fields=["destination", "dead_cause", "dead_at"],
                condition=GIVEN_UP,
                name="request_dead",
            ),
            # Bad ends of a stretch of time: what a chart's bar opens.
            models.Index(
                fields=["state", "state_changed_at"],
                condition=models.Q(state__in=["failed", "expired", "cancelled"]),
                name="request_bad_end",
            ),
            # What was given up and put aside, to be taken back.
            models.Index(
                fields=["-discarded_at"],
                condition=models.Q(discarded_at__isnull=False),
                name="request_discarded",
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
            # Is anything of a submission still open?
            models.Index(
                fields=["submission"],
                condition=models.Q(submission__isnull=False, state__in=["pending", "processing"]),
                name="request_submission_open",
            ),
        ]

    def __str__(self) -> str:
        return self.custom_id[:80]

    @property
    def outcome(self) -> str:
        """The word a client is told: succeeded, failed, expired or cancelled; empty while open."""
        return outcome_of(self.state)


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
    cost_nano = models.PositiveBigIntegerField(null=True)
    """In nano-dollars; None: unknown."""
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["request", "attempt"], name="answer_of_attempt")
        ]

    def __str__(self) -> str:
        return f"answer to request {self.request_id}, attempt {self.attempt}"
