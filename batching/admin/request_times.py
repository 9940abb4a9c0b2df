"""Requests by when they were delivered or ended: what a point of a chart opens.

Deliveries are found in the attempts between two ids that the tallies give, bad ends by an index of their own; of
either the newest ten thousand, as many as a list counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db.models import BooleanField, F, Func, Max, Min
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from unfold.contrib.filters.admin import TextFilter

from batching.admin.rows import MOST_COUNTED
from batching.lifecycle import BAD_ENDS
from batching.models import Bookmark, Request, Tally
from batching.models.tallies import KEPT
from batching.tallying import TRIED, began_at
from delivery.models import Attempt
from delivery.tallying import ATTEMPTS, DELIVERED

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

_IS_BAD_END: Final = Func(
    F("state"),
    template="%(expressions)s IN ('failed', 'expired', 'cancelled')",
    output_field=BooleanField(),
)
"""The condition of the index on bad ends, word for word: SQLite does not look at parameters to find it."""
_LOOKED_BACK: Final = timedelta(days=7)
"""How far an error's code alone is looked for."""


@dataclass(frozen=True, kw_only=True)
class Between:
    """From a moment up to before another one."""

    start: datetime
    end: datetime

    @classmethod
    def read(cls, text: str) -> Between | None:
        """Return what an address names, as ``2026-11-21T12:00:00Z..2026-11-21T12:01:00Z``; None when it does not."""
        first, _, last = text.partition("..")
        try:
            start, end = parse_datetime(first), parse_datetime(last)
        except ValueError:
            return None
        if start is None or end is None:
            return None
        return cls(start=_aware(start), end=_aware(end))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class DeliveredFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests whose result reached its destination in a stretch of time, by their attempts."""

    title = "delivered between (UTC, from..to)"
    parameter_name = "delivered"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep what was delivered then; none when the address names no stretch of time."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        between = Between.read(term)
        return queryset.filter(pk__in=_delivered(between)) if between else queryset.none()


def _delivered(between: Between) -> QuerySet[Any, Any]:
    """Return the numbers of the requests that were delivered then."""
    good = Attempt.objects.filter(outcome=DELIVERED)
    rows = good.filter(ended_at__gte=between.start, ended_at__lt=between.end)
    low, high = _ids_of_attempts(between)
    rows = rows.filter(pk__gte=low)
    if high is not None:
        rows = rows.filter(pk__lte=high)
    return rows.order_by("-pk").values("request_id")[: MOST_COUNTED + 1]


def _ids_of_attempts(between: Between) -> tuple[int, int | None]:
    """Return the lowest and the highest id that an attempt of that time may have; None: up to the newest."""
    mark = Bookmark.objects.filter(source=ATTEMPTS.name).first()
    if mark is None or mark.counted_at is None:
        return 0, None
    width_s = _width_since(between.start)
    rows = Tally.objects.filter(measure=TRIED, name=DELIVERED, width_s=width_s)
    rows = rows.filter(began_at__gte=began_at(between.start, width_s), began_at__lt=between.end)
    ids = rows.aggregate(low=Min("first_id"), high=Max("last_id"))
    is_open = between.end > mark.counted_at
    low = ids["low"] if ids["low"] is not None else mark.last_id + 1
    return low, None if is_open else (ids["high"] or 0)


def _width_since(start: datetime) -> int:
    """Return the width of the finest tallies that are kept from then on."""
    age = timezone.now() - start
    return next((width_s for width_s, kept in KEPT.items() if age < kept), max(KEPT))


class EndedFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests that failed, expired or were cancelled in a stretch of time."""

    title = "ended badly between (UTC, from..to)"
    parameter_name = "ended"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the bad ends of that time; none when the address names no stretch of time."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        between = Between.read(term)
        if between is None:
            return queryset.none()
        return queryset.filter(pk__in=_ended(between, request.GET.get("state__exact", "")))


def _ended(between: Between, state: str = "") -> QuerySet[Any, Any]:
    """Return the numbers of the newest bad ends of that time, of one state or all of them."""
    states = [state] if state in BAD_ENDS else sorted(BAD_ENDS)
    ends = Request.objects.filter(_IS_BAD_END, state__in=states)
    then = ends.filter(state_changed_at__gte=between.start, state_changed_at__lt=between.end)
    return then.order_by("-state_changed_at").values("pk")[: MOST_COUNTED + 1]


class ErrorFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests that ended badly with one error's code."""

    title = "error code (alone: of the last 7 days)"
    parameter_name = "error"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep those with this code; ``unknown``: without any."""
        code = (self.value() or "").strip()
        if not code:
            return queryset
        rows = queryset.filter(error_code="" if code == "unknown" else code)
        if EndedFilter.parameter_name in request.GET:
            return rows
        now = timezone.now()
        recent = Between(start=now - _LOOKED_BACK, end=now)
        return rows.filter(pk__in=_ended(recent, request.GET.get("state__exact", "")))
