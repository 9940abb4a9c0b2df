"""Lists read by row id, frozen while they are read: newest first, page by page, never by an offset.

A list's address says which ids: ``top`` (the newest row when it was first opened; what came later is told, not shown),
``before`` or ``after`` (the row at whose side the page begins). What an index serves in this order is read by it.
Other combinations of filters are looked for in windows of ids, for a part of a second; the page then says how far
back that was and goes on from there. So no page ever scans a table, and no combination is refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic

from django.db.models import QuerySet

from batching.admin.rows import (
    ROWS_ALONE,
    CappedPaginator,
    OurAdmin,
    OurChangeList,
    Row,
    count_up_to,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.contrib.admin.views.main import ChangeList
    from django.http import HttpRequest

TOP, BEFORE, AFTER = "top", "before", "after"
PLACE: Final = (TOP, BEFORE, AFTER)
"""Parameters of a list's address that say where one looks, not what is listed."""
_FIRST_WINDOW: Final = 5_000
_BIGGEST_WINDOW: Final = 80_000
_LOOK_S: Final = 0.12
MOST_NEW: Final = 1_000
_NEW_WINDOW: Final = 100_000
"""Ids above the top that are looked at for new rows."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a list one looks."""

    top: int
    """The newest row id that it shows."""
    before: int | None = None
    after: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, str], newest: int) -> Place:
        """Read a list's address; what is no number is left out."""
        found = {
            name: int(v) for name in PLACE if (v := given.get(name, "")).isdecimal() and len(v) < 19
        }
        return cls(top=found.get(TOP, newest), before=found.get(BEFORE), after=found.get(AFTER))


@dataclass(kw_only=True)
class Page:
    """What one look found."""

    rows: list[Any] = field(default_factory=list)
    """Newest first."""
    older_from: int | None = None
    """``before`` of the next page; None: there is nothing older."""
    newer_from: int | None = None
    """``after`` of the page above; None: this is the newest."""
    looked_to: int | None = None
    """The id at which the time for looking was over; None: the page is full, or all was looked at."""


def read(rows: QuerySet[Any], place: Place, *, most: int, span: tuple[int, int] | None) -> Page:
    """Return ``most`` of these rows, which stand newest first.

    ``span`` None: an index serves them in this order; else they are looked for in windows between these two ids.
    """
    upwards = place.after is not None
    low, high = span or (0, place.top)
    first = rows.filter(pk__lte=place.top)
    low = max(low, place.after + 1) if place.after is not None else low
    high = min(high, place.top, place.before - 1 if place.before is not None else place.top)
    ordered = first.order_by("pk" if upwards else "-pk")
    if span is None:
        found, looked_to = list(ordered.filter(pk__gte=low, pk__lte=high)[: most + 1]), None
    else:
        found, looked_to = _in_windows(ordered, low, high, most=most + 1, upwards=upwards)
    more = len(found) > most
    found = found[:most]
    if upwards:
        return Page(
            rows=found[::-1],
            older_from=found[0].pk if found else place.top + 1,
            newer_from=found[-1].pk if more else looked_to,
        )
    older = found[-1].pk if more else looked_to
    newer = None if place.before is None else place.before - 1
    return Page(
        rows=found, older_from=older, newer_from=newer, looked_to=None if more else looked_to
    )


def _in_windows(
    rows: QuerySet[Any], low: int, high: int, *, most: int, upwards: bool
) -> tuple[list[Any], int | None]:
    """Return up to ``most`` rows, and the id to go on from when time was over before the last window."""
    until, width, found = time.monotonic() + _LOOK_S, _FIRST_WINDOW, list[Any]()
    while low <= high and len(found) < most:
        end = min(high, low + width - 1) if upwards else max(low, high - width + 1)
        window = (low, end) if upwards else (end, high)
        found += rows.filter(pk__gte=window[0], pk__lte=window[1])[: most - len(found)]
        low, high = (end + 1, high) if upwards else (low, end - 1)
        width = min(width * 2, _BIGGEST_WINDOW)
        if time.monotonic() > until and low <= high and len(found) < most:
            return found, (low - 1 if upwards else high + 1)
    return found, None


def newest_id(rows: QuerySet[Any]) -> int:
    """Return the highest id of a table; 0 when it is empty."""
    return rows.order_by("-pk").values_list("pk", flat=True).first() or 0


def count_new(rows: QuerySet[Any], top: int) -> int:
    """Count the rows above ``top``, no more than MOST_NEW + 1."""
    return count_up_to(rows.filter(pk__gt=top, pk__lte=top + _NEW_WINDOW), MOST_NEW + 1)


class KeysetPaginator(CappedPaginator):
    """Stands in for a paginator where pages have no numbers."""

    template_name = "batcher/admin/_keyset.html"

    @cached_property
    def counted(self) -> int:
        """Rows on this page: no more are counted."""
        return len(self.object_list)


class KeysetRows(OurAdmin[Row], Generic[Row]):
    """An admin whose list is read by row id, and whose filters indexes serve in that order, each and together."""

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[ChangeList]:
        """Read by row id, frozen while it is read."""
        return KeysetChangeList

    def span_of(
        self, given: dict[str, str], query: str, rows: QuerySet[Row], place: Place
    ) -> tuple[int, int] | None:
        """Return between which ids to look for these rows; None: an index serves them."""
        return None


class KeysetChangeList(OurChangeList):
    """A list that is read by row id; its admin says by `span_of` which filters no index serves."""

    page = Page()
    place = Place(top=0)
    counts: CappedPaginator | None = None
    """Counts all that is listed, up to a cap; None where that would be a scan."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Take the place out of the address, so that every form and link means the filter alone."""
        self._given = {name: request.GET.get(name, "") for name in PLACE}
        for params in (self.params, self.filter_params):
            for name in PLACE:
                params.pop(name, None)
        filters = request.GET.copy()
        for name in PLACE:
            filters.pop(name, None)
        request.GET = filters  # type: ignore[assignment]  # Django's admin writes it too
        rows: QuerySet[Any] = super().get_queryset(request, *args, **kwargs)
        return rows

    def get_results(self, request: HttpRequest) -> None:
        """Read one page."""
        if ROWS_ALONE in request.META:
            return
        rows = self.queryset
        newest = 0 if self._given[TOP] else newest_id(self.model._base_manager.all())
        self.place = Place.of(self._given, newest)
        listing: Any = self.model_admin
        span = listing.span_of(self.filters_given(), self.query, rows, self.place)
        self.page = read(rows, self.place, most=self.list_per_page, span=span)
        if span is None:
            self.counts = CappedPaginator(rows.filter(pk__lte=self.place.top), self.list_per_page)
        self.result_list = self.page.rows
        self.paginator = KeysetPaginator(self.page.rows, self.list_per_page)
        self.result_count = self.full_result_count = len(self.page.rows)
        self.show_full_result_count, self.can_show_all, self.multi_page = False, False, False
        self.show_admin_actions = True

    def filters_given(self) -> dict[str, str]:
        """Return the filters that are set, name to value."""
        found = {name: values[-1].strip() for name, values in self.get_filters_params().items()}
        return {name: value for name, value in found.items() if value}

    @property
    def filter_url(self) -> str:
        """The list without a place: newest rows, frozen anew."""
        return str(self.get_query_string())

    @property
    def new_query(self) -> str:
        """What asks for rows that came since: the filter, and the top."""
        return str(self.get_query_string({TOP: self.place.top}))

    @property
    def looked_to(self) -> Any:
        """The oldest row that was looked at, when looking ended before the list did; else None."""
        if self.page.looked_to is None:
            return None
        rows = self.model._base_manager.filter(pk__gte=self.page.looked_to)
        return rows.order_by("pk").first()

    @property
    def older_url(self) -> str:
        """The page below; empty when there is none."""
        return self._page_at(BEFORE, self.page.older_from)

    @property
    def newer_url(self) -> str:
        """The page above; empty when there is none."""
        return self._page_at(AFTER, self.page.newer_from)

    def _page_at(self, side: str, pk: int | None) -> str:
        return "" if pk is None else str(self.get_query_string({TOP: self.place.top, side: pk}))
