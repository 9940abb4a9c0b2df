"""What may be wrong with a batch, a lane, an account or a destination: one question to the database each.

The lists filter by these and the overview counts them, so a figure and the list behind it are the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from django.db.models import Q
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter

from batching import turnaround
from batching.lifecycle import BATCH_ENDS, BatchState
from batching.models import Batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest

    from batching.models import Account, Destination, Lane

PAUSED, DISABLED, BROKEN, FAILING, SILENT, SLOW = (
    "paused", "disabled", "circuit_open", "failing", "silent", "slow",
)  # fmt: skip
_UNDER_WAY = [state for state in BatchState if state not in BATCH_ENDS]


def paused_batches(rows: QuerySet[Batch], _now: datetime) -> QuerySet[Batch]:
    """Keep those that a person holds back."""
    # Found first, ordered later, by indexes that hold none of the batches that have ended.
    building = Q(state=BatchState.BUILDING)
    due = Q(state__in=_UNDER_WAY, next_attempt_at__isnull=False)
    found = Batch.objects.filter(building | due, paused_at__isnull=False).order_by()
    return rows.filter(pk__in=found.values("pk"))


def slow_batches(rows: QuerySet[Batch], now: datetime) -> QuerySet[Batch]:
    """Keep those that the provider has had for longer than is usual in their lanes."""
    return rows.filter(pk__in=turnaround.slow(now))


def paused_lanes(rows: QuerySet[Lane], _now: datetime) -> QuerySet[Lane]:
    """Keep those that start no batch."""
    return rows.filter(paused_at__isnull=False)


def paused_accounts(rows: QuerySet[Account], _now: datetime) -> QuerySet[Account]:
    """Keep those that start no batch, though they are on."""
    return rows.filter(is_enabled=True, paused_at__isnull=False)


def failing_accounts(rows: QuerySet[Account], _now: datetime) -> QuerySet[Account]:
    """Keep those whose last call failed."""
    return rows.filter(is_enabled=True).exclude(last_error="")


def silent_accounts(rows: QuerySet[Account], _now: datetime) -> QuerySet[Account]:
    """Keep those whose provider answers no question about a batch."""
    return rows.filter(is_enabled=True, silent_since__isnull=False)


def paused_destinations(rows: QuerySet[Destination], _now: datetime) -> QuerySet[Destination]:
    """Keep those that a person stopped."""
    return rows.filter(deleted_at=None, disabled_at=None, paused_at__isnull=False)


def disabled_destinations(rows: QuerySet[Destination], _now: datetime) -> QuerySet[Destination]:
    """Keep those that were given up."""
    return rows.filter(deleted_at=None, disabled_at__isnull=False)


def broken_destinations(rows: QuerySet[Destination], now: datetime) -> QuerySet[Destination]:
    """Keep those that would be sent to, were not too much failing there."""
    would = {"deleted_at": None, "disabled_at": None, "paused_at": None}
    return rows.filter(**would, health__open_until__gt=now)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One thing that may be wrong with rows of one model."""

    name: str
    """As a list's address says it."""
    label: str
    rows: Callable[[QuerySet[Any], datetime], QuerySet[Any]]


class StandingFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Rows that something is wrong with."""

    title = "standing"
    parameter_name = "standing"
    standings: ClassVar[tuple[Standing, ...]]

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer what may be wrong."""
        return [(standing.name, standing.label) for standing in self.standings]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what it is true of."""
        for standing in self.standings:
            if standing.name == self.value():
                return standing.rows(queryset, timezone.now())
        return queryset


class BatchStandingFilter(StandingFilter):
    """Of batches."""

    standings = (
        Standing(name=PAUSED, label="paused", rows=paused_batches),
        Standing(name=SLOW, label="beyond its usual time", rows=slow_batches),
    )


class LaneStandingFilter(StandingFilter):
    """Of lanes."""

    standings = (Standing(name=PAUSED, label="paused", rows=paused_lanes),)


class AccountStandingFilter(StandingFilter):
    """Of accounts."""

    standings = (
        Standing(name=FAILING, label="failing", rows=failing_accounts),
        Standing(name=SILENT, label="not answering", rows=silent_accounts),
        Standing(name=PAUSED, label="paused", rows=paused_accounts),
    )


class DestinationStandingFilter(StandingFilter):
    """Of destinations."""

    standings = (
        Standing(name=BROKEN, label="circuit open", rows=broken_destinations),
        Standing(name=PAUSED, label="paused", rows=paused_destinations),
        Standing(name=DISABLED, label="disabled", rows=disabled_destinations),
    )
