"""What is kept about a key's calls: how much of its rate is used, and answers that may be asked for again."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import IntegrityError, models, transaction
from django.db.models.functions import Greatest
from django.utils import timezone

from batching.models.projects import ApiKey

KEPT_FOR = timedelta(hours=24)
PRUNED_AT_ONCE = 10_000


class Allowance(models.Model):
    """A bucket of tokens that all processes share, kept as the one moment at which it is full again.

    A bucket holds one minute's worth and fills evenly. Taking a token moves ``full_at`` by the time in
    which one comes back; one conditional UPDATE decides, so nothing is locked and nothing is given twice.
    """

    class Kind(models.TextChoices):
        """What is counted."""

        CALLS = "calls"
        LINES = "lines"

    key = models.ForeignKey(ApiKey, models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    full_at = models.FloatField()
    """Seconds since 1970. In the past: full. A minute ahead: empty. Further ahead: in debt."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "kind"], name="allowance_of")]

    def __str__(self) -> str:
        return f"{self.kind} of key {self.key_id}"

    @classmethod
    def take(cls, key: ApiKey, kind: str, count: int, *, per_minute: int, now_s: float) -> bool:
        """Take ``count`` tokens; False when there are not so many."""
        cost = count * 60 / per_minute
        rows = cls.objects.filter(key=key, kind=kind)
        if rows.filter(full_at__lte=now_s + 60 - cost).update(
            full_at=Greatest("full_at", models.Value(now_s)) + cost
        ):
            return True
        if count > per_minute or rows.exists():
            return False
        try:
            with transaction.atomic():
                cls.objects.create(key=key, kind=kind, full_at=now_s + cost)
        except IntegrityError:  # another process made it just now
            return cls.take(key, kind, count, per_minute=per_minute, now_s=now_s)
        return True

    @classmethod
    def charge(cls, key: ApiKey, kind: str, count: int, *, per_minute: int, now_s: float) -> None:
        """Take ``count`` tokens, there or not: what is missing is owed and fills up first."""
        cost = count * 60 / per_minute
        row, is_new = cls.objects.get_or_create(
            key=key, kind=kind, defaults={"full_at": now_s + cost}
        )
        if not is_new:
            owed = Greatest("full_at", models.Value(now_s)) + cost
            cls.objects.filter(pk=row.pk).update(full_at=owed)

    @classmethod
    def full_in_s(cls, key: ApiKey, kind: str, *, now_s: float) -> float:
        """Return the seconds until the bucket is full; over 60 it is in debt."""
        full_at = cls.objects.filter(key=key, kind=kind).values_list("full_at", flat=True).first()
        return max(0.0, (full_at or 0.0) - now_s)


class KeptAnswerQuerySet(models.QuerySet["KeptAnswer"]):
    """Questions about kept answers."""

    def over(self, now: datetime) -> KeptAnswerQuerySet:
        """Those that are kept no longer."""
        return self.filter(began_at__lt=now - KEPT_FOR)

    def prune(self, now: datetime) -> int:
        """Drop those that are kept no longer, PRUNED_AT_ONCE at most; return how many."""
        old = list(
            self.over(now).order_by("began_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]
        )
        return self.filter(pk__in=old).delete()[0] if old else 0


class KeptAnswer(models.Model):
    """The answer to a call with an ``Idempotency-Key``; without a status, the call is under way."""

    key = models.ForeignKey(ApiKey, models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=255)
    """What the client sent as ``Idempotency-Key``."""
    token = models.CharField(max_length=32)
    """Whose turn it is: a call that took too long and was taken over writes nothing."""
    began_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveSmallIntegerField(null=True)
    call_sha256 = models.CharField(max_length=64, blank=True)
    """Over method, path, query and body."""
    content_type = models.CharField(max_length=100, blank=True)
    body = models.BinaryField(null=True)

    objects = KeptAnswerQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "name"], name="keptanswer_name")]
        indexes = [models.Index(fields=["began_at"], name="keptanswer_began")]

    def __str__(self) -> str:
        return self.name
