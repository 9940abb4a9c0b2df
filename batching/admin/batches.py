"""Batches: where they are, since when, what they hold, why they wait, and what a person may do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.urls import path
from unfold.contrib.filters.admin import ChoicesDropdownFilter

from batching import order
from batching.admin import batch_files, batch_list, batch_page, batch_rows, searching, shown
from batching.admin.batch_filters import LaneFilter, QuickFilter
from batching.admin.batch_moves import MOVES
from batching.admin.keyset import KeysetRows
from batching.admin.rows import MachineRows
from batching.admin.run_orders import WideMoves
from batching.admin.standings import BatchStandingFilter
from batching.models import Batch
from batching.templatetags.badges import state_badge

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString


@admin.register(Batch)
class BatchAdmin(WideMoves[Batch], KeysetRows[Batch], MachineRows[Batch]):
    """Made by the machine, moved by operators."""

    moves = MOVES
    teaches = "Batches are made of requests: send one, as the overview shows, and it is packed within seconds."
    list_display = (
        "name", "state_now", "its_lane", "lines", "used", "what_next", "whose",
    )  # fmt: skip
    list_display_links = ("name",)
    list_select_related = ("lane__account",)
    list_per_page = 20
    list_before_template = "batcher/admin/_batches_head.html"
    list_filter = (("state", ChoicesDropdownFilter), LaneFilter, BatchStandingFilter, QuickFilter)
    search_fields = ("key",)
    search_help_text = "Number, key (bat_…) or provider's id (batch_…)"
    deferred_in_lists = ("provider_object", "last_error")
    change_form_outer_before_template = "batcher/admin/_batch_head.html"
    fieldsets = (
        ("Batch", {"fields": (
            ("key", "lane"), ("created_at", "seal_by"), ("requests", "size"), ("tokens", "deliver_by"),
        )}),
        ("Step at hand", {"classes": ("collapse",), "fields": (
            ("badge", "state_changed_at"), ("tries", "next_attempt_at"), ("wait_reason", "waiting_since"),
            ("place", "priority"), ("paused_at", "pause_reason"), ("promoted_at", "overtaken"),
            ("token_limit_tries", "deaths"), ("origin", "splits"), "error",
        )}),
        ("At the provider", {"classes": ("collapse",), "fields": (
            ("provider_batch_id", "provider_status"), ("polled_at", "provider_expires_at"),
            ("provider_completed", "provider_failed"), "ignored_lines",
        )}),
    )  # fmt: skip
    readonly_fields = ("badge", "place", "requests", "size", "tokens", "error")

    def get_urls(self) -> list[URLPattern]:
        """Add what renews the list, the parts of a page that are heavy, and the files."""
        wrap, me = self.admin_site.admin_view, {"batch_admin": self}
        return [
            path("live/", wrap(batch_list.live_view), me, name="batching_batch_live"),
            path(
                "<int:pk>/outcome/",
                wrap(batch_page.outcome_view),
                me,
                name="batching_batch_outcome",
            ),
            path(
                "<int:pk>/file/<slug:part>/",
                wrap(batch_files.file_view),
                me,
                name="batching_batch_file",
            ),
            *super().get_urls(),
        ]

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[ChangeList]:
        """Read by row id, with what rows say beside the batch."""
        return batch_list.BatchList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        """Find by number, by key, or by the provider's id."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.number_is(term) or searching.key_is(term, "bat")
        if named is not None:
            return queryset.filter(named), False
        return queryset.filter(provider_batch_id=term), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a batch with why it is where it is, its way, its figures and its history; to htmx, what moves of it."""
        batch = self.row_at(request, object_id)
        if batch is None:
            return super().change_view(request, object_id, form_url, extra_context)
        context = {**(extra_context or {}), **batch_page.head_of(batch, request)}
        if getattr(request, "htmx", False) and self.has_view_permission(request, batch):
            return batch_page.renewed(request, batch, context)
        return super().change_view(
            request, object_id, form_url, context | batch_page.rest_of(batch)
        )

    @admin.display(description="Batch · age")
    def name(self, batch: Batch) -> SafeString:
        """Number, as people say it, over the time since its first request."""
        return shown.two_lines(f"#{batch.pk}", shown.age(batch.created_at))

    @admin.display(description="State · for")
    def state_now(self, batch: Batch) -> SafeString:
        """State and time in it, against what is usual."""
        return _live("state", batch)

    @admin.display(description="Lane")
    def its_lane(self, batch: Batch) -> SafeString:
        """Model over account and endpoint."""
        lane = batch.lane
        return shown.two_lines(
            shown.trimmed(lane.model),
            shown.trimmed(f"{lane.account.name} · {lane.endpoint.removeprefix('/v1/')}"),
        )

    @admin.display(description="Ok · failed · left")
    def lines(self, batch: Batch) -> SafeString:
        """What came of its requests so far, as figures with a bar."""
        return _live("lines", batch)

    @admin.display(description="Tokens · cost")
    def used(self, batch: Batch) -> SafeString:
        """Estimated and real, and what that cost."""
        return _live("tokens", batch)

    @admin.display(description="Place · deadline")
    def what_next(self, batch: Batch) -> SafeString:
        """Place in its lane or a guess of its end, and its deadline."""
        return _live("next", batch)

    @admin.display(description="Project")
    def whose(self, batch: Batch) -> str:
        """Whose requests it holds."""
        listed: Any = batch
        return batch_rows.project_cell(batch, listed.figures, listed.as_of)

    @admin.display(description="State")
    def badge(self, batch: Batch) -> SafeString:
        """State as colour, icon and word."""
        return state_badge(batch.state)

    @admin.display(description="Requests")
    def requests(self, batch: Batch) -> SafeString:
        """How many it holds, linked to them."""
        url = shown.list_of("batching.request", batch=batch.pk)
        return shown.link(url, shown.number(batch.request_count))

    @admin.display(description="Size")
    def size(self, batch: Batch) -> str:
        """Bytes of its input file."""
        return shown.size(batch.size_bytes)

    @admin.display(description="Tokens (est.)")
    def tokens(self, batch: Batch) -> str:
        """Estimated tokens of its input."""
        return shown.number(batch.token_estimate)

    @admin.display(description="Place")
    def place(self, batch: Batch) -> SafeString | str:
        """Where it stands in its lane, linked to the whole line."""
        found = order.place_of(batch)
        return shown.link(shown.page_of(batch.lane), found) if found else shown.NOTHING

    @admin.display(description="Last error")
    def error(self, batch: Batch) -> SafeString | str:
        """What went wrong last, as it came."""
        return shown.long_text(batch.last_error)


def _live(name: str, batch: Batch) -> SafeString:
    """Return a cell that is renewed while the list is looked at; ``BatchList`` put its figures beside the batch."""
    listed: Any = batch
    return batch_rows.live(name, batch, listed.figures, listed.as_of)
