"""Replays in the admin: how far each is, who ordered it and why, and its stop.

A running one's page asks for its own progress every few seconds, until there is no more to come.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching.admin import searching, shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import MachineRows
from batching.templatetags.badges import state_badge
from delivery import replays
from delivery.models import Replay

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

STOP_POLLING: Final = 286
"""htmx asks no more after this status (htmx.org, hx-trigger, polling)."""

MOVES = (
    Move(
        name="stop",
        label="Stop",
        effect="Nothing more is made due. What was made due already is still sent.",
        permission="delivery.operate_replay",
        act=replays.stop,
        states=frozenset({Replay.State.RUNNING}),
        icon="stop_circle",
        is_dangerous=True,
    ),
)


@admin.register(Replay)
class ReplayAdmin(MovesAdmin[Replay], MachineRows[Replay]):
    """Ordered from a destination, a list of requests or the API; carried out by the clock."""

    moves = MOVES
    list_display = ("name", "badge", "progress", "in_short", "why", "age")
    list_display_links = ("name",)
    list_select_related = ("project",)
    list_filter = (("state", ChoicesDropdownFilter), ("project", RelatedDropdownFilter))
    search_fields = ("key",)
    search_help_text = "Key (rpl_…)"
    change_form_outer_before_template = "batcher/admin/_replay_progress.html"
    fieldsets = (
        ("Order", {"fields": (
            ("key", "its_project"), "meant", ("sent", "pace"), ("ordered_by", "created_at"), "reason",
        )}),
    )  # fmt: skip
    readonly_fields = ("its_project", "meant", "sent", "pace", "ordered_by")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Replay], search_term: str
    ) -> tuple[QuerySet[Replay], bool]:
        """Find by key, whole or its beginning."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.key_is(term, "rpl")
        return (queryset.filter(named) if named else queryset.none()), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a replay; to htmx, its progress alone, and that there is no more to come."""
        context = {**(extra_context or {})}
        if (row := self.row_at(request, object_id)) is not None:
            context |= {"row": row, "why": explain(row, timezone.now()), "figures": _figures(row)}
        is_part = bool(getattr(request, "htmx", False)) and row is not None
        if is_part and self.has_view_permission(request, row):
            status = None if row is None or row.is_running else STOP_POLLING
            return TemplateResponse(
                request, self.change_form_outer_before_template, context, status=status
            )
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description="Key")
    def name(self, row: Replay) -> str:
        """The beginning of its key, as the search takes it."""
        return shown.cut_short(row.key, 18)

    @admin.display(description="State")
    def badge(self, row: Replay) -> SafeString:
        """How it stands."""
        return state_badge(row.state)

    @admin.display(description="Sent · skipped · left")
    def progress(self, row: Replay) -> SafeString | str:
        """How many are due again by now, how many were not to be, how many are left."""
        if row.matched is None:
            return f"counting, {row.counted:,} so far" if row.is_running else "not counted"
        if not row.matched:
            return "nothing matched"
        return shown.progress(row.done, row.skipped, total=row.matched)

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

    @admin.display(description="Why")
    def why(self, row: Replay) -> SafeString:
        """The reason that was given, and by whom."""
        return shown.two_lines(
            shown.cut_short(row.reason, 40), shown.cut_short(self.ordered_by(row), 36)
        )

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

    @admin.display(description="By")
    def ordered_by(self, row: Replay) -> str:
        """A person or an API key."""
        return row.who if row.user_id is None else f"user {row.who}"

    @admin.display(description="Age")
    def age(self, row: Replay) -> SafeString | str:
        """Time since it was ordered."""
        return shown.age(row.created_at)


def _figures(row: Replay) -> list[tuple[str, str]]:
    """Return what a page shows of a replay's progress, with names."""
    matched = f"{row.counted:,} so far" if row.matched is None else f"{row.matched:,}"
    return [
        ("Matched", matched),
        ("Sent again", f"{row.done:,}"),
        ("Skipped", f"{row.skipped:,}"),
        ("At most a second", f"{row.per_second:g}"),
        ("Next step", shown.clock(row.next_step_at) if row.is_running else shown.NOTHING),
        ("Ended", shown.moment(row.ended_at)),
    ]


def explain(row: Replay, now: datetime) -> str:
    """Return in a sentence what a replay does now and what comes next."""
    if not row.is_running:
        return _end_of(row)
    if row.error:
        return f"Its last step failed and is taken again at {row.next_step_at:%H:%M:%S} UTC: {row.error}"
    if row.matched is None:
        return "What it means is counted first; then it sends."
    left = max(0, row.matched - row.done - row.skipped)
    lasts = shown.duration(timedelta(seconds=math.ceil(left / row.per_second)))
    late = now - row.next_step_at
    if late > timedelta(minutes=1):
        return f"Its next step has been due for {shown.duration(late)}: does the clock tick, does a worker run?"
    return f"{left:,} left, at most {row.per_second:g} a second: about {lasts}."


def _end_of(row: Replay) -> str:
    ended = f"{row.ended_at:%Y-%m-%d %H:%M:%S} UTC" if row.ended_at else "some time"
    if row.state == Replay.State.FAILED:
        return f"Given up at {ended}: {row.error}"
    if row.state == Replay.State.STOPPED:
        return f"Stopped at {ended}; what was made due by then is still sent."
    return f"Everything was made due by {ended}; the attempts say what came of it."
