"""Who asks and where results go: projects, their API keys, their destinations."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from batching.costs import NANO
from batching.encryption import EncryptedTextField
from batching.models.keys import new_destination_key

_ALPHABET = string.ascii_letters + string.digits
_OURS = "bm_live_"
_LAST_USED_STEP = timedelta(minutes=1)


class DeadlinePolicy(models.TextChoices):
    """What becomes of a request whose ``deliver_by`` can't be met any more, while no provider has it."""

    WAIT = "wait", "wait: keep waiting, deliver late"
    FAIL = "fail", "fail: tell the client deadline_exceeded"
    DIRECT = "direct", "direct: ask the provider's ordinary endpoint, at full price, under the cap"


class Project(models.Model):
    """A tenant. Everything a key may see or touch belongs to its project."""

    name = models.CharField(max_length=100)
    deadline_policy = models.CharField(
        max_length=8,
        choices=DeadlinePolicy.choices,
        default=DeadlinePolicy.WAIT,
        db_default=DeadlinePolicy.WAIT.value,
        help_text="What becomes of a request whose deliver_by can't be met any more, while no provider has it.",
    )
    direct_cap = models.DecimalField(
        "cap for direct answers",
        max_digits=9,
        decimal_places=2,
        default=Decimal(0),
        db_default=Decimal(0),
        validators=[MinValueValidator(0)],
        help_text="US$ a day (UTC) that direct answers may cost; 0: nothing is asked directly.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name"], name="project_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def direct_cap_nano(self) -> int:
        """The cap in nano-dollars."""
        return int(self.direct_cap * NANO)


class Scope(models.TextChoices):
    """What a key may do."""

    SUBMIT = "submit", "submit: send requests"
    READ = "read", "read: look at requests, batches and results"
    OPERATE = "operate", "operate: cancel, retry, redeliver, seal, restart, pause, redirect"
    DESTINATIONS = "destinations:write", "destinations:write: make and change destinations"


def default_scopes() -> list[str]:
    """Every scope: what a first key gets."""
    return [str(s) for s in Scope]


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Questions about keys."""

    def valid(self, now: datetime) -> ApiKeyQuerySet:
        """Neither revoked nor past their expiry."""
        alive = models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=now)
        return self.filter(alive, revoked_at__isnull=True)

    def holding(self, secret: str) -> ApiKeyQuerySet:
        """The key with this secret: found by its SHA-256, so the secret itself is nowhere stored."""
        return self.filter(secret_sha256=digest(secret))

    def opened_by(self, secret_sha256: str, now: datetime) -> ApiKeyQuerySet:
        """The key that this secret's SHA-256 opens: its own, or the one before it while both hold."""
        before = models.Q(previous_sha256=secret_sha256, previous_until__gt=now)
        return self.filter(models.Q(secret_sha256=secret_sha256) | before)


def digest(secret: str) -> str:
    """Return the hex SHA-256 of a key's secret (high entropy: no slow hash is needed)."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKey(models.Model):
    """A secret that lets a program act for one project. Shown once, stored as a hash."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=24, editable=False)
    """The secret's public beginning, to tell keys apart in lists and logs."""
    secret_sha256 = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=default_scopes)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Coarse: written at most once a minute."""
    previous_sha256 = models.CharField(max_length=64, blank=True, editable=False)
    """Of the secret before the last rotation."""
    previous_until = models.DateTimeField(null=True, blank=True, editable=False)
    """Until when that one opens the door as well."""
    allowed_models = models.JSONField(default=list, blank=True)
    """Patterns (``gpt-4o*``); empty: all. Likewise below; ``permits`` reads them."""
    allowed_endpoints = models.JSONField(default=list, blank=True)
    allowed_destinations = models.JSONField(default=list, blank=True)
    calls_per_minute = models.PositiveIntegerField(null=True, blank=True)
    """None: the installation's default; 0: no limit. Likewise for lines."""
    lines_per_minute = models.PositiveIntegerField(null=True, blank=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.UniqueConstraint(fields=["secret_sha256"], name="apikey_secret"),
            models.UniqueConstraint(
                fields=["previous_sha256"],
                name="apikey_previous_secret",
                condition=~models.Q(previous_sha256=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @classmethod
    def issue(
        cls,
        project: Project,
        name: str,
        *,
        scopes: Iterable[str] | None = None,
        secret: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Store a new key and return it with its secret, which can't be read again.

        ``secret`` is made when not given: ``bm_live_`` + 8 public characters + 43 of secret.
        """
        secret = secret or _new_secret()
        key = cls.objects.create(
            project=project,
            name=name,
            prefix=_beginning(secret),
            secret_sha256=digest(secret),
            scopes=sorted(scopes) if scopes is not None else default_scopes(),
            expires_at=expires_at,
        )
        return key, secret

    @property
    def is_valid(self) -> bool:
        """True when it opens the door now."""
        return self.revoked_at is None and (
            self.expires_at is None or self.expires_at > timezone.now()
        )

    def allows(self, scope: str) -> bool:
        """Tell whether the key has this scope."""
        return scope in self.scopes

    def rotate(self, *, overlap: timedelta, now: datetime) -> str:
        """Give the key a new secret and return it; the old one holds for ``overlap`` more.

        A third one, still held over from an earlier rotation, is closed at once. Ours keep their public
        beginning, so that logs go on naming the key alike.
        """
        secret = _new_secret(self.prefix if self.prefix.startswith(_OURS) else "")
        self.previous_sha256, self.previous_until = self.secret_sha256, now + overlap
        self.secret_sha256, self.prefix = digest(secret), _beginning(secret)
        self.save(update_fields=["secret_sha256", "prefix", "previous_sha256", "previous_until"])
        return secret

    def opens_with(self, secret_sha256: str, now: datetime) -> bool:
        """Tell whether this secret opens the door now; the key itself may still be closed."""
        if secret_sha256 == self.secret_sha256:
            return True
        until = self.previous_until
        return secret_sha256 == self.previous_sha256 and until is not None and until > now

    def revoke(self, now: datetime) -> bool:
        """Close the key for good; False when it was closed already."""
        if self.revoked_at is not None:
            return False
        self.revoked_at = now
        self.save(update_fields=["revoked_at"])
        return True

    def touch(self, now: datetime) -> None:
        """Note that it was used, at most once a minute."""
        if self.last_used_at is None or now - self.last_used_at > _LAST_USED_STEP:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)
            self.last_used_at = now


def _new_secret(beginning: str = "") -> str:
    return f"{beginning or _OURS + _random(8)}_{_random(43)}"


def _beginning(secret: str) -> str:
    return secret[:16] if secret.startswith(_OURS) else secret[:4]


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_signing_secret() -> str:
    """Return a fresh webhook secret: ``whsec_`` and 32 random bytes in base64 (Standard Webhooks)."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class DestinationQuerySet(models.QuerySet["Destination"]):
    """Questions about destinations."""

    def open(self) -> DestinationQuerySet:
        """Those that results may be sent to now."""
        return self.filter(
            paused_at__isnull=True, disabled_at__isnull=True, deleted_at__isnull=True
        )

    def present(self) -> DestinationQuerySet:
        """Those that are not deleted."""
        return self.filter(deleted_at__isnull=True)


class Destination(models.Model):
    """Where a project wants results. Made on first use of a ``delivery_config``, or by an operator."""

    class Type(models.TextChoices):
        """How results travel."""

        WEBHOOK = "webhook"
        RABBITMQ = "rabbitmq"

    key = models.CharField(max_length=40, default=new_destination_key, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="destinations")
    name = models.CharField(max_length=100, blank=True)
    """Set by an operator; requests may then name it instead of a URL."""
    type = models.CharField(max_length=16, choices=Type.choices)
    url = models.CharField(max_length=2048, blank=True)
    queue = models.CharField(max_length=255, blank=True)
    exchange = models.CharField(max_length=255, blank=True)
    routing_key = models.CharField(max_length=255, blank=True)
    fingerprint = models.CharField(max_length=64, editable=False)
    """SHA-256 over type and address: one row for one place."""
    secret = EncryptedTextField(blank=True, default="", editable=False)
    """``whsec_…``: signs what we send; encrypted at rest."""
    secret_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When that secret was made; None: before this was noted."""
    previous_secret = EncryptedTextField(blank=True, default="", editable=False)
    """The secret before the last rotation."""
    previous_secret_until = models.DateTimeField(null=True, blank=True, editable=False)
    """Until when that one signs as well."""
    headers = EncryptedTextField(blank=True, default="")
    """Further headers of each webhook as a JSON object, name to value; may hold credentials."""
    retry_delays_s = models.JSONField(null=True, blank=True)
    """Seconds before each try, the first included; as many tries as delays. None: the default schedule."""
    fail_fast_on_4xx = models.BooleanField(default=False)
    """On: a client error ends the delivery at once, for it would only be repeated."""
    timeout_s = models.FloatField(null=True, blank=True)
    """For one try, all in all. None, here and below: the installation's default."""
    max_in_flight = models.PositiveIntegerField(null=True, blank=True)
    max_per_second = models.FloatField(null=True, blank=True)
    """None: no fixed rate."""
    max_inline_bytes = models.PositiveIntegerField(null=True, blank=True)
    """A larger result is sent as a thin message that says where to fetch it."""
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    stop_reason = models.CharField(max_length=300, blank=True, editable=False)
    """Why it is paused or disabled; what is due is held, never lost."""
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Kept for the history alone: its name and its place may be had by a new one."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DestinationQuerySet.as_manager()

    class Meta:
        permissions = [("operate_destination", "Can pause and resume destinations")]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="destination_key"),
            models.UniqueConstraint(fields=["project", "fingerprint"], name="destination_place"),
            models.UniqueConstraint(
                fields=["project", "name"], name="destination_name", condition=~models.Q(name="")
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.type} {self.address}"

    def save(self, *args: object, **kwargs: object) -> None:
        self.fingerprint = place_of(
            self.type, self.url, self.queue, self.exchange, self.routing_key
        )
        if self.deleted_at is not None:
            self.fingerprint = hashlib.sha256(f"deleted\n{self.key}".encode()).hexdigest()
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """The place in one line, without the secrets that URLs carry in their query."""
        if self.type == self.Type.WEBHOOK:
            return self.url.split("?", 1)[0]
        return self.queue or f"{self.exchange} → {self.routing_key}"

    @property
    def state(self) -> str:
        """``open``, ``paused``, ``disabled`` or ``deleted``."""
        if self.deleted_at is not None:
            return "deleted"
        if self.disabled_at is not None:
            return "disabled"
        return "open" if self.paused_at is None else "paused"

    @property
    def own_headers(self) -> dict[str, str]:
        """The headers that each of its webhooks carries, values in the clear."""
        headers: dict[str, str] = json.loads(self.headers) if self.headers else {}
        return headers

    @property
    def config(self) -> dict[str, str]:
        """The ``delivery_config`` that leads here."""
        if self.type == self.Type.WEBHOOK:
            return {"type": "webhook", "webhook_url": self.url}
        if self.queue:
            return {"type": "rabbitmq", "rabbitmq_queue": self.queue}
        return {
            "type": "rabbitmq",
            "rabbitmq_exchange": self.exchange,
            "rabbitmq_routing_key": self.routing_key,
        }


def place_of(type_: str, url: str, queue: str, exchange: str, routing_key: str) -> str:
    """Return the fingerprint of a place: the same place always gives the same one."""
    return hashlib.sha256(
        "\n".join((type_, url, queue, exchange, routing_key)).encode()
    ).hexdigest()
