"""Runs in the admin: what is done to everything that a filter matched, how far that is, and its stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter

from batching.admin import running, shown
from batching.admin.listing import in_words
from batching.admin.walks import WalkAdmin, stop_move
from batching.models import Run
from batching.steering import Refused

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

MOVES = (stop_move("batching.operate_run", "No further row is touched. What was done stays done."),)


@admin.register(Run)
class RunAdmin(WalkAdmin[Run]):
    """Ordered from a list, carried out by the clock."""

    moves = MOVES
    prefix = "run"
    teaches = (
        "A run does one thing to everything that a list's filter matches: open the batches or the requests, "
        "narrow them, and choose “With everything that matches”."
    )
    list_display = ("name", "badge", "what", "progress", "why", "age")
    list_display_links = ("name",)
    list_filter = (("state", ChoicesDropdownFilter),)
    search_fields = ("key",)
    search_help_text = "Key (run_…)"
    fieldsets = (
        ("Order", {"fields": (
            ("key", "what"), "meant", ("ordered_by", "created_at"), "reason",
        )}),
    )  # fmt: skip
    readonly_fields = ("what", "meant", "ordered_by")

    @admin.display(description="Does")
    def what(self, row: Run) -> str:
        """The move, and which rows."""
        plural = apps.get_model(row.rows_of)._meta.verbose_name_plural
        asked = ", ".join(f"{name} {value}" for name, value in row.answers.items())
        return f"{_label(row)} {plural}{f' ({asked})' if asked else ''}"

    @admin.display(description="That match")
    def meant(self, row: Run) -> SafeString:
        """The filter in words, linked to the list that it shows by now."""
        url = f"{shown.list_of(row.rows_of)}?{row.query}"
        return shown.link(url, in_words(row.query) or "no filter: all of them")

    def under_way(self, row: Run) -> str:
        """Say whether it counts or acts, and what is left."""
        if row.matched is None:
            return "What it means is written down first; then it begins."
        left = max(0, row.matched - row.done - row.skipped)
        return f"{left:,} left. Rows that changed after the order are skipped."

    def ended(self, row: Run, at: str) -> str:
        """Say how many were done, and why others were not."""
        if row.state == Run.State.FAILED:
            return f"Given up at {at}: {row.error}"
        how = "Stopped" if row.state == Run.State.STOPPED else "Ended"
        return f"{how} at {at}: {row.done:,} done, {row.skipped:,} skipped."

    def reasons(self, row: Run) -> list[tuple[str, int]]:
        """Say why rows were skipped, most first."""
        return sorted(row.refusals.items(), key=lambda one: -one[1])


def _label(row: Run) -> str:
    try:
        return running.move_of(row).label
    except Refused:
        return row.move
