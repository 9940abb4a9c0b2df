"""Ordering a run: a move to everything that a list's filter matches, seen before it is ordered.

The page counts what is listed, shows five of the rows and what would be skipped, and asks for a reason;
``running`` carries the order out. A list whose admin is ``WideMoves`` offers it beside its selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone

from batching import audit
from batching.admin import running, shown
from batching.admin.listing import filter_of, in_words
from batching.admin.moves import Move, MovesAdmin, ReasonForm
from batching.admin.rows import Row
from batching.lifecycle import Actor
from batching.steering import Refused

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern


@dataclass(frozen=True, kw_only=True)
class WideMove:
    """A move as a list offers it for everything that it shows."""

    label: str
    icon: str
    is_dangerous: bool
    url: str


class WideMoves(MovesAdmin[Row], Generic[Row]):
    """Rows whose moves may also be made to everything that a list's filter matches."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page that orders a run."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_run"
        view = self.admin_site.admin_view(self._order)
        return [path("run/<slug:move_name>/", view, name=name), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Offer what this user may do to everything that is listed."""
        offered = {"wide_moves": self._offered(request)}
        return super().changelist_view(request, {**(extra_context or {}), **offered})

    def _offered(self, request: HttpRequest) -> list[WideMove]:
        query = request.GET.urlencode()
        return [
            WideMove(
                label=move.label,
                icon=move.icon,
                is_dangerous=move.is_dangerous,
                url=self._order_url(move, query),
            )
            for move in self.moves
            if _is_wide(move) and request.user.has_perm(move.permission)
        ]

    def _move_selected(
        self, request: HttpRequest, move: Move, rows: QuerySet[Any]
    ) -> HttpResponse | None:
        """Lead to the order when everything that the filter matches was chosen."""
        if "1" in request.POST.getlist("select_across") and _is_wide(move):
            return HttpResponseRedirect(self._order_url(move, request.GET.urlencode()))
        return super()._move_selected(request, move, rows)

    def _order_url(self, move: Move, query: str) -> str:
        if move.wide_page:
            return f"{reverse(move.wide_page)}?{query}"
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_run"
        return f"{reverse(name, args=[move.name])}?{filter_of(query)}"

    def _order(self, request: HttpRequest, move_name: str) -> HttpResponse:
        """Show what a move to everything listed means; with a reason, order it."""
        move = next((m for m in self.moves if m.name == move_name and _is_wide(m)), None)
        if move is None:
            raise Http404(f"no move {move_name}")
        if not request.user.has_perm(move.permission) or not self.has_view_permission(request):
            raise PermissionDenied
        form = (move.form or ReasonForm)(request.POST if request.method == "POST" else None)
        try:
            if form.is_bound and form.is_valid():
                return self._start(request, move, form)
            return self._preview(request, move, form)
        except Refused as refusal:
            messages.error(request, f"Nothing was ordered: {refusal.detail}.")
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
            return HttpResponseRedirect(reverse(name))

    def _start(self, request: HttpRequest, move: Move, form: ReasonForm) -> HttpResponse:
        answers = {**form.cleaned_data}
        reason, user = answers.pop("reason"), request.user
        by = Actor(name=user.get_username(), user_id=int(user.pk or 0))
        query, now = request.GET.urlencode(), timezone.now()
        with transaction.atomic():
            run = running.start(
                self, move, by=by, query=query, reason=reason, answers=answers, now=now
            )
            facts = running.facts_of(run)
            audit.record("run.start", by=by, row=run, reason=reason, after=facts)
        messages.success(request, "The run begins within seconds.")
        return HttpResponseRedirect(shown.page_of(run))

    def _preview(self, request: HttpRequest, move: Move, form: ReasonForm) -> HttpResponse:
        query = filter_of(request.GET.urlencode())
        seen, unfit = running.look(self, request.user, query, move)
        back = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{move.label} all that match",
            "move": move,
            "look": seen,
            "count": shown.number(seen.matched),
            "unfit": unfit,
            "fit": shown.number(max(0, seen.matched - sum(unfit.values()))),
            "samples": [(row, shown.page_of(row)) for row in seen.samples],
            "filter": in_words(query),
            "form": form,
            "back": f"{back}?{query}" if query else back,
        }
        return TemplateResponse(request, "batcher/admin/run_order.html", context)


def _is_wide(move: Move) -> bool:
    """True when it can be told to many rows at once: it asks for a reason, and for nothing about one row."""
    return move.asks_reason and not move.is_for_one and move.page is None
