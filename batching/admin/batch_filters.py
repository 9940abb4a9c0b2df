"""The filters of the list of batches, each served by an index: by lane, by standing, and the quick ones above the list.

*Mine* means what a person has to do with: batches that he or she did something to (the newest thousand lines of the audit
log), and those that hold the first or the last request of the newest 200 submissions that came with API keys which
that person issued.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter

from batching import turnaround
from batching.admin import searching
from batching.admin.standings import paused_batches
from batching.lifecycle import BATCH_ENDS, BatchState
from batching.models import AuditEntry, Batch, Lane, Request, Submission
from batching.models.batches import IN_LINE, PROVIDER_HOLDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import QuerySet
    from django.http import HttpRequest

    Person = User | AnonymousUser

LANES_OFFERED: Final = 500
SOON: Final = timedelta(hours=2)
_FAILED_LATELY: Final = timedelta(days=7)
_ACTS_READ: Final = 1_000
_SUBMISSIONS_READ: Final = 200
_UNDER_WAY: Final = [state for state in BatchState if state not in BATCH_ENDS]
_OPEN: Final = Q(state=BatchState.BUILDING) | Q(state__in=_UNDER_WAY, next_attempt_at__isnull=False)
"""Under way, in the words of two indexes that hold none of the batches that have ended."""
_WENT_WRONG: Final = (
    BatchState.FAILED,
    BatchState.DELIVERY_FAILED,
    BatchState.PARTIALLY_DELIVERED,
)


class LaneFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Batches of one lane."""

    title = "lane"
    parameter_name = "lane"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer the lanes, their accounts fetched along."""
        lanes = Lane.objects.select_related("account").order_by("model", "endpoint")
        return [(str(lane.pk), str(lane)) for lane in lanes[:LANES_OFFERED]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Batch]) -> QuerySet[Batch]:
        """Keep the batches of that lane; none when it is no lane's number."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.number_is(term, "lane_id")
        return queryset.filter(named) if named is not None else queryset.none()


def _active(_user: Person, _now: datetime) -> Q:
    return _OPEN


def _waiting(_user: Person, _now: datetime) -> Q:
    return Q(state__in=IN_LINE)


def _needing_attention(_user: Person, now: datetime) -> Q:
    went_wrong = Q(state__in=_WENT_WRONG, state_changed_at__gt=now - _FAILED_LATELY)
    held = Q(pk__in=paused_batches(Batch.objects.all(), now).values("pk"))
    failing = Q(state__in=_UNDER_WAY, next_attempt_at__isnull=False, tries__gt=0)
    return went_wrong | held | failing | Q(pk__in=turnaround.slow(now))


def _expiring(_user: Person, now: datetime) -> Q:
    at_provider = Q(state__in=PROVIDER_HOLDS, provider_expires_at__lt=now + SOON)
    return _OPEN & (at_provider | Q(deliver_by__lt=now + SOON))


def _mine(user: Person, _now: datetime) -> Q:
    acts = AuditEntry.objects.filter(actor=f"user {user.get_username()}").order_by("-id")
    keys = {"batch": set[str](), "apikey": set[str]()}
    for kind, action, key in acts.values_list("object_type", "action", "object_key")[:_ACTS_READ]:
        if kind == "batch" or (kind == "apikey" and action == "apikey.add"):
            keys[kind].add(key)
    numbers = [int(key) for key in keys["apikey"] if key.isdecimal()]
    sent = Submission.objects.filter(api_key__in=numbers).order_by("-pk").values_list("pk")
    held = _ends_of([pk for (pk,) in sent[:_SUBMISSIONS_READ]]) if numbers else set()
    return Q(key__in=keys["batch"]) | Q(pk__in=held)


def _ends_of(submissions: list[int]) -> set[int]:
    """Return the batches that hold the first or the last request of these submissions. One query."""
    of_it = Request.objects.filter(submission=OuterRef("pk")).values("batch")
    ends = Submission.objects.filter(pk__in=submissions).annotate(
        first_batch=Subquery(of_it.order_by("pk")[:1]),
        last_batch=Subquery(of_it.order_by("-pk")[:1]),
    )
    found = ends.values_list("first_batch", "last_batch")
    return {pk for pair in found for pk in pair if pk is not None}


@dataclass(frozen=True, kw_only=True)
class Quick:
    """One quick filter."""

    name: str
    """As the list's address says it."""
    label: str
    which: Callable[[Person, datetime], Q]


class QuickFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """What people look for most."""

    title = "quick"
    parameter_name = "quick"
    quicks: ClassVar[tuple[Quick, ...]] = (
        Quick(name="active", label="Active", which=_active),
        Quick(name="waiting", label="Waiting", which=_waiting),
        Quick(name="attention", label="Needs attention", which=_needing_attention),
        Quick(name="expiring", label="Expiring < 2 h", which=_expiring),
        Quick(name="mine", label="Mine", which=_mine),
    )

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self._user = request.user
        super().__init__(request, *args)

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer them."""
        return [(quick.name, quick.label) for quick in self.quicks]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Batch]) -> QuerySet[Batch]:
        """Keep those that it means: found first by an index, ordered later."""
        for quick in self.quicks:
            if quick.name == self.value():
                found = Batch.objects.filter(quick.which(self._user, timezone.now())).order_by()
                return queryset.filter(pk__in=found.values("pk"))
        return queryset


__all__ = ["LaneFilter", "Quick", "QuickFilter"]
