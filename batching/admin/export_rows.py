"""Exports in the admin: how far each is, who ordered it and why, its file and its stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.urls import path, reverse
from unfold.contrib.filters.admin import ChoicesDropdownFilter

from batching.admin import exporting, shown
from batching.admin.listing import in_words
from batching.admin.walks import WalkAdmin, stop_move
from batching.models import Export

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString

MOVES = (stop_move(exporting.EXPORT, "Nothing more is written, and what was written is removed."),)


@admin.register(Export)
class ExportAdmin(WalkAdmin[Export]):
    """Ordered from the list of requests, a batch or a submission; written by the clock's tick."""

    moves = MOVES
    prefix = "exp"
    done_verb = "Written"
    change_form_outer_before_template = "batcher/admin/_export_head.html"
    list_display = ("name", "badge", "what", "progress", "size", "why", "age")
    list_display_links = ("name",)
    list_filter = (("state", ChoicesDropdownFilter),)
    search_fields = ("key",)
    search_help_text = "Key (exp_…)"
    fieldsets = (
        ("Order", {"fields": (
            ("key", "what"), "meant", "holds", ("ordered_by", "created_at"), "reason",
        )}),
    )  # fmt: skip
    readonly_fields = ("what", "meant", "holds", "ordered_by")

    def get_urls(self) -> list[URLPattern]:
        """Add the file."""
        return [
            path(
                "<path:object_id>/file/",
                self.admin_site.admin_view(exporting.download_view),
                {"export_admin": self},
                name="batching_export_file",
            ),
            *super().get_urls(),
        ]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show an export; offer its file to those who may have it."""
        row = self.row_at(request, object_id)
        context = {**(extra_context or {})}
        if row is not None and row.is_there:
            may = exporting.may_download(request.user, row)
            context["file_url"] = (
                reverse("admin:batching_export_file", args=[row.pk]) if may else ""
            )
            context["may_not"] = not may
            context["filename"], context["size"] = row.filename, shown.size(row.size_bytes)
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description="What")
    def what(self, row: Export) -> str:
        """Its form, and whether it holds what clients sent."""
        return f"{row.get_form_display().split(':')[0]}{', with bodies or answers' if row.has_payload else ''}"

    @admin.display(description="Requests")
    def meant(self, row: Export) -> SafeString:
        """The filter in words, linked to the list that it shows by now."""
        url = f"{shown.list_of('batching.request')}?{row.query}"
        return shown.link(url, in_words(row.query) or "no filter: all of them")

    @admin.display(description="Columns")
    def holds(self, row: Export) -> str:
        """Their names."""
        return ", ".join(row.columns)

    @admin.display(description="Size")
    def size(self, row: Export) -> str:
        """Of its file, while it is there."""
        return shown.size(row.size_bytes) if row.deleted_at is None else shown.NOTHING

    def under_way(self, row: Export) -> str:
        """Say whether it counts or writes, and what is left."""
        if row.matched is None:
            return "What it means is written down first; then its lines."
        left = max(0, row.matched - row.done - row.skipped)
        return f"{left:,} left. What came after the order is not in it."

    def ended(self, row: Export, at: str) -> str:
        """Say how it ended, and how long its file is there."""
        if row.state == Export.State.FAILED:
            return f"Given up at {at}: {row.error}"
        if row.state == Export.State.STOPPED:
            return f"Stopped at {at}; what was written is removed."
        if row.deleted_at:
            return f"Done at {at}; its file's time is over. Order it again to have it."
        until = f"{row.expires_at:%Y-%m-%d %H:%M:%S} UTC" if row.expires_at else "some time"
        gone = f" {row.skipped:,} were deleted meanwhile." if row.skipped else ""
        return f"Done at {at}.{gone} The file is there until {until}."
