"""Attempts in the admin: every try at delivering a result, newest first, read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from unfold.contrib.filters.admin import TextFilter

from batching.admin import searching, shown
from batching.admin.rows import MachineRows
from batching.templatetags.badges import outcome_badge
from delivery.models import Attempt

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


class DestinationFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Attempts at one destination, by its key or name."""

    title = "destination (key or name)"
    parameter_name = "destination"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Attempt]) -> QuerySet[Attempt]:
        """Keep the attempts at the destination that was named."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.key_is(term, "dst", "destination__key")
        return queryset.filter(named) if named else queryset.filter(destination__name=term)


@admin.register(Attempt)
class AttemptAdmin(MachineRows[Attempt]):
    """Written by the senders."""

    list_display = (
        "ended_at",
        "its_request",
        "place",
        "number",
        "badge",
        "status",
        "took",
        "detail",
    )
    list_display_links = ("ended_at",)
    list_select_related = ("request", "destination")
    list_filter = (DestinationFilter,)
    search_fields = ("request__key",)
    search_help_text = "Key of a request (req_…)"
    deferred_in_lists = ("answer",)
    fieldsets = (
        ("Attempt", {"fields": (
            ("its_request", "place"), ("number", "is_replay"), ("ended_at", "took"), "next_at",
        )}),
        ("What came of it", {"fields": (("badge", "status"), "address", "detail", "said")}),
    )  # fmt: skip
    readonly_fields = ("its_request", "place", "badge", "took", "said")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Attempt], search_term: str
    ) -> tuple[QuerySet[Attempt], bool]:
        """Find the attempts of one request."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.key_is(term, "req", "request__key")
        return (queryset.filter(named) if named else queryset.none()), False

    @admin.display(description="Request")
    def its_request(self, attempt: Attempt) -> SafeString:
        """Link to what was delivered."""
        return shown.link(shown.page_of(attempt.request), attempt.request)

    @admin.display(description="Destination")
    def place(self, attempt: Attempt) -> SafeString:
        """Link to where it went."""
        return shown.link(shown.page_of(attempt.destination), str(attempt.destination)[:60])

    @admin.display(description="Outcome")
    def badge(self, attempt: Attempt) -> SafeString:
        """How it ended."""
        return outcome_badge(attempt.outcome, is_last=attempt.next_at is None)

    @admin.display(description="Took")
    def took(self, attempt: Attempt) -> str:
        """How long it took, in milliseconds."""
        return f"{attempt.duration_s * 1000:,.0f} ms"

    @admin.display(description="Receiver's answer")
    def said(self, attempt: Attempt) -> SafeString | str:
        """The beginning of what the receiver said."""
        return shown.long_text(attempt.answer)
