"""Replays in the admin: how far each is, who ordered it and why, and its stop."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching.admin import shown
from batching.admin.walks import WalkAdmin, stop_move
from delivery import replays
from delivery.models import Replay

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

MOVES = (
    stop_move(
        "delivery.operate_replay",
        "Nothing more is made due. What was made due already is still sent.",
    ),
)


@admin.register(Replay)
class ReplayAdmin(WalkAdmin[Replay]):
    """Ordered from a destination, a list of requests or the API; carried out by the clock."""

    moves = MOVES
    teaches = "A replay sends results again: order one on a destination's page, or from the list of requests."
    prefix = "rpl"
    done_verb = "Sent again"
    list_display = ("name", "badge", "progress", "in_short", "why", "age")
    list_display_links = ("name",)
    list_select_related = ("project",)
    list_filter = (("state", ChoicesDropdownFilter), ("project", RelatedDropdownFilter))
    search_fields = ("key",)
    search_help_text = "Key (rpl_…)"
    fieldsets = (
        ("Order", {"fields": (
            ("key", "its_project"), "meant", ("sent", "pace"), ("ordered_by", "created_at"), "reason",
        )}),
    )  # fmt: skip
    readonly_fields = ("its_project", "meant", "sent", "pace", "ordered_by")

    def under_way(self, row: Replay) -> str:
        """Say whether it counts or sends, and how long it lasts."""
        if row.matched is None:
            return "What it means is counted first; then it sends."
        left = max(0, row.matched - row.done - row.skipped)
        lasts = shown.duration(timedelta(seconds=math.ceil(left / row.per_second)))
        return f"{left:,} left, at most {row.per_second:g} a second: about {lasts}."

    def ended(self, row: Replay, at: str) -> str:
        """Say what became of it."""
        if row.state == Replay.State.FAILED:
            return f"Given up at {at}: {row.error}"
        if row.state == Replay.State.STOPPED:
            return f"Stopped at {at}; what was made due by then is still sent."
        return f"Everything was made due by {at}; the attempts say what came of it."

    def figures(self, row: Replay) -> list[tuple[str, str]]:
        """Add its pace and its next step."""
        next_at = shown.clock(row.next_step_at) if row.is_running else shown.NOTHING
        pace = [("At most a second", f"{row.per_second:g}"), ("Next step", next_at)]
        return [*super().figures(row), *pace]

    @admin.display(description="Results")
    def meant(self, row: Replay) -> str:
        """Its filter, in words."""
        return str(replays.which_of(row))

    @admin.display(description="Results")
    def in_short(self, row: Replay) -> SafeString:
        """The beginning of that, keys cut, and how fast."""
        words = [shown.cut_short(word, 13) for word in self.meant(row).split()]
        pace = f"at most {self.pace(row)}"
        return shown.two_lines(shown.cut_short(" ".join(words), 36), pace)

    @admin.display(description="Sends again")
    def sent(self, row: Replay) -> str:
        """Whether receivers may get again what they have."""
        return "only what was given up" if row.only_failed else "what was delivered too"

    @admin.display(description="At most")
    def pace(self, row: Replay) -> str:
        """How fast."""
        return f"{row.per_second:g} a second"

    @admin.display(description="Project")
    def its_project(self, row: Replay) -> str:
        """Whose results it may mean."""
        return str(row.project) if row.project else "every project"
