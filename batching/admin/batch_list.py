"""The list of batches: read by row id, renewed in place while it is looked at.

The list's page asks ``live_view`` every few seconds for the cells of the batches that it shows. They are written where
they stand: no row moves, comes or goes; what came since is told as "N new". Once all of them have ended and the list is
not the newest page, there is no more to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html_join

from batching.admin import batch_rows, keyset, shown
from batching.admin.batch_filters import QuickFilter
from batching.admin.page_sizes import SIZES, SizedList
from batching.admin.rows import ROWS_ALONE
from batching.models import Batch

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    from batching.admin.batches import BatchAdmin

STOP_POLLING: Final = 286
"""htmx asks no more after this status (htmx.org, hx-trigger, polling)."""


class BatchList(SizedList):
    """A page of batches with what their rows say."""

    def get_results(self, request: HttpRequest) -> None:
        """Read one page, and what its rows say beside the batches."""
        super().get_results(request)
        if ROWS_ALONE in request.META:
            return
        self.as_of = timezone.now()
        figures = batch_rows.figures_of(self.result_list, self.as_of)
        for batch in self.result_list:
            batch.figures, batch.as_of = figures[batch.pk], self.as_of

    @property
    def live_query(self) -> str:
        """What asks for these rows again: the filter, the top, and which rows stand here."""
        given: dict[str, Any] = {keyset.TOP: self.place.top}
        if self.result_list:
            given |= {"ids": ",".join(str(batch.pk) for batch in self.result_list)}
        return str(self.get_query_string(given))

    @property
    def quick_links(self) -> list[dict[str, Any]]:
        """Each quick filter with its address; the one that holds leads back to all."""
        name, on = QuickFilter.parameter_name, self.filters_given().get(QuickFilter.parameter_name)
        return [
            {
                "label": quick.label,
                "is_on": quick.name == on,
                "url": self.get_query_string({name: None if quick.name == on else quick.name}),
            }
            for quick in QuickFilter.quicks
        ]


def live_view(request: HttpRequest, batch_admin: BatchAdmin) -> HttpResponse:
    """Tell htmx how the batches of a page stand now; anyone else goes to the list."""
    if not batch_admin.has_view_permission(request):
        raise PermissionDenied
    query = request.GET.copy()
    ids = [
        int(pk) for pk in query.pop("ids", [""])[0].split(",") if pk.isdecimal() and len(pk) < 19
    ]
    if not getattr(request, "htmx", False):
        return HttpResponseRedirect(f"{shown.list_of('batching.batch')}?{query.urlencode()}")
    address = request.GET.urlencode()
    now, top = (
        timezone.now(),
        keyset.Place.of({name: query.get(name, "") for name in keyset.PLACE}, 0).top,
    )
    batches = list(_visible(ids[: max(SIZES)]))
    figures = batch_rows.figures_of(batches, now)
    cells = [
        batch_rows.live(name, batch, figures[batch.pk], now, swap=True)
        for batch in batches
        for name in batch_rows.LIVE
    ]
    fresh = _new(request, batch_admin, query.urlencode(), top)
    is_over = not fresh and keyset.BEFORE in query and all(batch.is_final for batch in batches)
    context = {
        "live_query": f"?{address}",
        "as_of": now,
        "fresh": fresh,
        "refresh": _without_place(query),
        "cells": format_html_join("", "{}", ((cell,) for cell in cells)),
        "is_over": is_over,
    }
    status = STOP_POLLING if is_over else None
    return TemplateResponse(request, "batcher/admin/_batches_live.html", context, status=status)


def _visible(ids: list[int]) -> QuerySet[Batch]:
    rows = Batch.objects.filter(pk__in=ids).select_related("lane__account")
    return rows.defer("provider_object", "last_error")


def _new(request: HttpRequest, batch_admin: BatchAdmin, query: str, top: int) -> str:
    """Count what came since the list was opened and fits its filter; empty when nothing did."""
    request.META[ROWS_ALONE] = True
    request.GET = type(request.GET)(query, mutable=False)
    counted = keyset.count_new(batch_admin.get_changelist_instance(request).queryset, top)
    if not counted:
        return ""
    return f"{keyset.MOST_NEW:,}+" if counted > keyset.MOST_NEW else f"{counted:,}"


def _without_place(query: Any) -> str:
    given = query.copy()
    for name in keyset.PLACE:
        given.pop(name, None)
    return f"?{given.urlencode()}"
