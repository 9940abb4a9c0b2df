"""Submissions: what clients sent together, and how much of it was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Q
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching.admin import searching, shown
from batching.admin.rows import MachineRows
from batching.models import Submission

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


@admin.register(Submission)
class SubmissionAdmin(MachineRows[Submission]):
    """Made at intake."""

    list_display = (
        "key", "kind", "project", "accepted", "duplicates", "rejected", "age", "its_requests",
    )  # fmt: skip
    list_display_links = ("key",)
    list_select_related = ("project",)
    list_filter = (("project", RelatedDropdownFilter), ("kind", ChoicesDropdownFilter))
    search_fields = ("key",)
    search_help_text = "Key (sub_…)"
    fieldsets = (
        ("Submission", {"fields": (
            ("key", "kind"), ("project", "api_key"), ("created_at", "finished_at"),
            ("accepted", "duplicates", "rejected"), "its_requests",
        )}),
        ("Client's batch", {"fields": (
            ("endpoint", "input_file"), ("completion_window", "expires_at"), "metadata",
            ("in_progress_at", "finalizing_at", "completed_at"),
            ("cancelling_at", "cancelled_at", "failed_at"), ("completed_count", "failed_count"),
            ("cancelled_count", "expired_count", "deleted_at"),
            "line_errors", ("next_attempt_at", "last_error"),
        )}),
    )  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Submission], search_term: str
    ) -> tuple[QuerySet[Submission], bool]:
        """Find by key, whole or its beginning."""
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(searching.key_is(term, "sub") or Q(pk__in=[])), False

    @admin.display(description="Age")
    def age(self, row: Submission) -> SafeString | str:
        """Time since it came."""
        return shown.age(row.created_at)

    @admin.display(description="Requests")
    def its_requests(self, row: Submission) -> SafeString:
        """Link to them."""
        return shown.link(shown.list_of("batching.request", submission=row.key), "show requests")
