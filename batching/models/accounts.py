"""Where requests go: accounts at providers, and the lanes in which their batches queue."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property

from batching.encryption import EncryptedTextField
from batching.models.projects import Project


class AccountQuerySet(models.QuerySet["Account"]):
    """Questions about accounts."""

    def usable_by(self, project: Project) -> AccountQuerySet:
        """Accounts that a project may send through: its own first, then the shared ones."""
        mine = models.Q(project=project) | models.Q(project__isnull=True)
        return self.filter(mine, is_enabled=True).order_by(
            models.F("project").asc(nulls_last=True), "pk"
        )


class Account(models.Model):
    """Credentials, base URL and limits at one provider."""

    class Kind(models.TextChoices):
        """Which provider speaks; names the entry in the provider registry."""

        OPENAI = "openai", "OpenAI or compatible"
        ANTHROPIC = "anthropic", "Anthropic"
        SANDBOX = "sandbox", "Sandbox"
        SANDBOX_ANTHROPIC = "sandbox-anthropic", "Sandbox, Anthropic's side"

    project = models.ForeignKey(
        Project,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="accounts",
        help_text="Only this project may use it; empty: every project may.",
    )
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.OPENAI)
    base_url = models.CharField(max_length=500, default="https://api.openai.com/v1")
    api_key = EncryptedTextField(blank=True, default="")
    is_enabled = models.BooleanField(default=True)
    poll_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds between looks at a batch; empty: the default."
    )
    max_requests = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests in one batch; empty: the provider's limit."
    )
    max_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Bytes of one batch file; empty: the provider's limit."
    )
    token_limit = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text="Enqueued tokens per model; empty: the built-in table of models.",
    )
    max_batches_in_flight = models.PositiveIntegerField(
        null=True, blank=True, help_text="Batches at the provider at once; empty: no limit."
    )
    max_requests_in_flight = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Requests at the provider at once, in all batches; empty: the provider's limit.",
    )
    max_creates_per_hour = models.PositiveIntegerField(
        null=True, blank=True, help_text="Batches created in any hour; empty: the provider's limit."
    )
    webhook_secret = EncryptedTextField(blank=True, default="")
    """Signs what the provider sends to /hooks/openai; empty: nothing is taken for this account."""
    silent_since = models.DateTimeField(null=True, blank=True, editable=False)
    """Since when the provider answers no question about a batch; None: it does."""
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(
        max_length=300, blank=True, default="", db_default="", editable=False
    )
    last_error = models.CharField(max_length=500, blank=True, editable=False)
    last_error_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error_class = models.CharField(
        max_length=120, blank=True, default="", db_default="", editable=False
    )
    """What kind of error that was: what it means to us, the HTTP status, the provider's code."""
    last_success_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When the provider took a call last, to the minute."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = AccountQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name"], name="account_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """Whether batches may be started through it: ``open``, ``paused`` or ``off``."""
        if not self.is_enabled:
            return "off"
        return "paused" if self.paused_at else "open"

    @cached_property
    def model_limits(self) -> list[TokenLimit]:
        """The figures for models that hold for it, read once."""
        mine = models.Q(account=self.pk) | models.Q(account=None)
        return list(TokenLimit.objects.filter(mine))

    @property
    def is_sandbox(self) -> bool:
        """True when the stand-in provider is behind it, whichever side."""
        return self.kind in (self.Kind.SANDBOX, self.Kind.SANDBOX_ANTHROPIC)

    @property
    def key_hint(self) -> str:
        """The last four characters of the key: all that is ever shown of it."""
        return (
            f"…{self.api_key[-4:]}"
            if len(self.api_key) > 8
            else ("set" if self.api_key else "none")
        )


class TokenLimit(models.Model):
    """The operator's figure for models whose names begin alike; it comes before the built-in table."""

    account = models.ForeignKey(
        Account,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="Only for this account; empty: for all of them.",
    )
    prefix = models.CharField(
        max_length=200, help_text="The beginning of the model's name; the longest that fits holds."
    )
    tokens = models.PositiveBigIntegerField(help_text="Enqueued tokens, such as 1,234,567.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "prefix"], name="tokenlimit_of"),
            models.UniqueConstraint(
                fields=["prefix"], condition=models.Q(account=None), name="tokenlimit_of_all"
            ),
            models.CheckConstraint(condition=models.Q(tokens__gt=0), name="tokenlimit_is_some"),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}: {self.tokens:,}"


class Lane(models.Model):
    """(account, model, endpoint): requests are packed and batches wait within one lane."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="lanes", db_index=False)
    model = models.CharField(max_length=200)
    endpoint = models.CharField(max_length=100)
    token_limit = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Enqueued tokens; empty: the account's or the table's."
    )
    max_batches_in_flight = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Batches of this lane at the provider at once; empty: no limit.",
    )
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Since when none of its batches may be started; requests are taken and packed all the same."""
    pause_reason = models.CharField(
        max_length=300, blank=True, default="", db_default="", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "model", "endpoint"], name="lane_of")
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.endpoint} · {self.account.name}"

    @property
    def state(self) -> str:
        """Whether its batches may be started: ``open`` or ``paused``."""
        return "paused" if self.paused_at else "open"


class Turnaround(models.Model):
    """How long a lane's last batches took, from their creation at the provider until their results were here."""

    lane = models.OneToOneField(Lane, models.CASCADE, primary_key=True, related_name="turnaround")
    spans_s = models.JSONField(default=list)
    """Seconds, oldest first; so many as are remembered."""
    p50_s = models.PositiveIntegerField(default=0)
    p90_s = models.PositiveIntegerField(default=0)
    batches = models.PositiveIntegerField(default=0)
    """All that ended so far."""
    learned_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.lane_id}: {self.p50_s} s, {self.p90_s} s"


class Capacity(models.Model):
    """What was learned of an account's queue for one model; the provider counts its lanes together."""

    account = models.ForeignKey(Account, models.CASCADE, related_name="+", db_index=False)
    model = models.CharField(max_length=200)
    is_frozen = models.BooleanField(
        default=False, help_text="Keep what was learned so far, and learn no more."
    )
    learned_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    """Enqueued tokens that the provider takes, as far as it showed; None: it has refused nothing."""
    refused_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    """How many it refused last time, all batches together."""
    refused_at = models.DateTimeField(null=True, blank=True)
    clean_runs = models.PositiveSmallIntegerField(default=0)
    """Batches that ended well since the limit moved."""
    estimated_tokens = models.PositiveBigIntegerField(default=0)
    """Of answered requests, the recent ones weighing most; ``real_tokens`` is what the provider counted."""
    real_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "capacities"
        constraints = [models.UniqueConstraint(fields=["account", "model"], name="capacity_of")]

    def __str__(self) -> str:
        return f"{self.model} · {self.account.name}"
