"""Batches: requests of one lane on their way through the provider."""

from __future__ import annotations

import time
from datetime import datetime

from django.db import models
from django.utils import timezone

from batching.lifecycle import BATCH_ENDS, BatchLifecycle, BatchState
from batching.models.accounts import Lane
from batching.models.keys import new_batch_key

PROVIDER_HOLDS = (BatchState.SUBMITTING, BatchState.PROCESSING, BatchState.CANCELLING)
"""States in which the provider holds the batch, or may hold it."""
IN_LINE = (BatchState.UPLOADING, BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY)
"""States in which a batch has a place in its lane: it is sealed, and not yet at the provider."""


class BatchQuerySet(models.QuerySet["Batch"]):
    """Questions about batches."""

    def due(self, now: datetime, *states: str) -> BatchQuerySet:
        """Batches in these states whose next step may be tried now, longest due first."""
        return self.filter(state__in=states, next_attempt_at__lte=now).order_by(
            "next_attempt_at", "pk"
        )

    def held_by_provider(self) -> BatchQuerySet:
        """Batches that take up the provider's queue, or may."""
        return self.filter(state__in=PROVIDER_HOLDS)

    def in_order(self, overtakes: int) -> BatchQuerySet:
        """First who goes first: promoted, overtaken ``overtakes`` times, by priority, near deadline, rank, age."""
        is_overdue = models.Case(
            models.When(overtaken__gte=overtakes, then=models.Value(1)), default=models.Value(0)
        )
        promoted = models.F("promoted_at").asc(nulls_last=True)
        return self.order_by(promoted, is_overdue.desc(), "-priority", "-is_near", "rank", "pk")

    def of_project(self, project_id: int) -> BatchQuerySet:
        """Batches that hold at least one request of this project."""
        from batching.models.requests import Request

        mine = Request.objects.filter(batch=models.OuterRef("pk"), project_id=project_id)
        return self.filter(models.Exists(mine))


class Batch(BatchLifecycle):
    """One provider batch, from the first request packed to the last result delivered.

    ``next_attempt_at`` says when its next step may be tried. A worker claims a batch by moving that
    time to the end of its lease and raising ``fence``: whoever comes back later than that finds
    another fence and drops what it has.
    """

    key = models.CharField(max_length=40, default=new_batch_key, editable=False)
    lane = models.ForeignKey(Lane, models.PROTECT, related_name="batches", db_index=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    seal_by = models.DateTimeField(null=True, blank=True)
    """The earliest moment that one of its requests asks to be sent."""
    deliver_by = models.DateTimeField(null=True, blank=True)
    """The nearest deadline of its requests, counted like the figures below."""
    is_near = models.BooleanField(default=False, db_default=False, editable=False)
    """That deadline is so near that it goes before others of its priority."""

    # What it holds: counted while it builds, frozen when it is sealed.
    request_count = models.PositiveIntegerField(default=0)
    size_bytes = models.PositiveBigIntegerField(default=0)
    token_estimate = models.PositiveBigIntegerField(default=0)

    # Parts of a batch that was refused as a whole.
    origin = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="parts", db_index=False
    )
    """The first batch that was refused, of which this one is a part."""
    splits = models.PositiveIntegerField(default=0, db_default=0)
    """How often it was taken apart, its parts and their parts included."""

    # Its place in the lane.
    priority = models.SmallIntegerField(default=0, db_default=0)
    """The highest of its requests' when it was sealed, unless a person set it."""
    is_priority_set = models.BooleanField(default=False, db_default=False)
    rank = models.BigIntegerField(default=time.time_ns, db_default=0)
    """Lower goes first: nanoseconds since 1970 when it was opened, so there is room between two for a third."""
    overtaken = models.PositiveIntegerField(default=0, db_default=0)
    """How many batches went in its stead while it waited for room."""
    promoted_at = models.DateTimeField(null=True, blank=True)
    """Since when it skips the order."""
    paused_at = models.DateTimeField(null=True, blank=True)
    """Since when it may not be started; it keeps its place."""
    pause_reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    """Who paused it, and why."""

    # The step at hand.
    next_attempt_at = models.DateTimeField(default=timezone.now, null=True, blank=True)
    """None: nothing is left to do."""
    fence = models.PositiveIntegerField(default=0)
    tries = models.PositiveIntegerField(default=0)
    """Tries at the present step without success."""
    token_limit_tries = models.PositiveIntegerField(default=0)
    """How often the provider's queue was full; kept until there is progress."""
    deaths = models.PositiveSmallIntegerField(default=0, db_default=0)
    """How many workers in a row died at a step of it, the one that has it now counted among them."""
    lost_creates = models.PositiveSmallIntegerField(default=0, db_default=0)
    """Intents to create it in a row of which no worker lived to say what came of them."""
    wait_reason = models.CharField(max_length=300, blank=True)
    waiting_since = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    # The provider's side. Its status is its own word, never ours.
    input_sha256 = models.CharField(max_length=64, blank=True)
    input_file_id = models.CharField(max_length=200, blank=True)
    upload_started_at = models.DateTimeField(null=True, blank=True)
    create_started_at = models.DateTimeField(null=True, blank=True)
    doubtful_since = models.DateTimeField(null=True, blank=True)
    """Since when nobody knows whether its creation had its effect."""
    is_unproven = models.BooleanField(default=False, db_default=False)
    """Adopted by its size and time: its answers have yet to prove that it is this one."""
    provider_batch_id = models.CharField(max_length=200, blank=True)
    provider_status = models.CharField(max_length=60, blank=True)
    provider_total = models.PositiveIntegerField(null=True, blank=True)
    provider_completed = models.PositiveIntegerField(null=True, blank=True)
    provider_failed = models.PositiveIntegerField(null=True, blank=True)
    provider_expires_at = models.DateTimeField(null=True, blank=True)
    provider_object = models.JSONField(null=True, blank=True)
    polled_at = models.DateTimeField(null=True, blank=True)
    output_file_id = models.CharField(max_length=200, blank=True)
    error_file_id = models.CharField(max_length=200, blank=True)
    cancel_asked = models.BooleanField(default=False)
    """A person asked: unanswered requests end as cancelled and are not sent again."""
    input_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cached_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    output_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    reasoning_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_nano = models.PositiveBigIntegerField(null=True, blank=True)
    """What its answers cost, in nano-dollars, as they are settled; None: unknown."""

    # What became of its requests, frozen when it ends.
    answered_count = models.PositiveIntegerField(null=True, blank=True)
    failed_count = models.PositiveIntegerField(null=True, blank=True)
    missing_looks = models.PositiveSmallIntegerField(default=0)
    """How often its files were read again because answers were missing."""
    ignored_lines = models.PositiveIntegerField(default=0)
    """Lines in its files that belong to no open request of it."""

    objects = BatchQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "batches"
        permissions = [
            ("operate_batch", "Can seal, cancel, restart and redeliver batches"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="batch_key"),
            models.UniqueConstraint(
                fields=["lane"],
                condition=models.Q(state="building"),
                name="batch_one_building",
            ),
        ]
        indexes = [
            # BatchQuerySet.due: the sweeps of every phase.
            models.Index(
                fields=["state", "next_attempt_at"],
                condition=models.Q(next_attempt_at__isnull=False),
                name="batch_due",
            ),
            # Lists by lane, and who holds the lane's capacity.
            models.Index(fields=["lane", "state"], name="batch_lane_state"),
            # Lists by state, newest first.
            models.Index(fields=["state", "-id"], name="batch_state"),
            # The parts of a batch that was refused.
            models.Index(
                fields=["origin"],
                condition=models.Q(origin__isnull=False),
                name="batch_origin",
            ),
            # How many were created in the last hour.
            models.Index(
                fields=["lane", "-create_started_at"],
                condition=models.Q(create_started_at__isnull=False),
                name="batch_created",
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk}"

    @property
    def filename(self) -> str:
        """The input file's name here and at the provider: found again after any crash.

        The content is part of the name, so a changed file is another file.
        """
        return f"batcher-{self.key}-{self.input_sha256[:12]}.jsonl"

    @property
    def is_final(self) -> bool:
        """True when nothing more happens by itself."""
        return self.state in BATCH_ENDS
