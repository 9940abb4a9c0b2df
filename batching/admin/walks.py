"""What the pages of replays and runs share: a list that is watched, a page that renews itself, a stop.

A running one's page asks for its own progress every few seconds, until there is no more to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from django.contrib import admin
from django.template.response import TemplateResponse
from django.utils import timezone

from batching import walks
from batching.admin import searching, shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import MachineRows
from batching.models.walks import Walk
from batching.templatetags.badges import state_badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

STOP_POLLING: Final = 286
"""htmx asks no more after this status (htmx.org, hx-trigger, polling)."""
_LATE_S: Final = 60

Kind = TypeVar("Kind", bound=Walk)


def stop_move(permission: str, effect: str) -> Move:
    """Return the move that stops a running one; ``effect`` says what is left of it then."""
    return Move(
        name="stop",
        label="Stop",
        effect=effect,
        permission=permission,
        act=walks.stop,
        states=frozenset({Walk.State.RUNNING}),
        icon="stop_circle",
        is_dangerous=True,
    )


class WalkAdmin(MovesAdmin[Kind], MachineRows[Kind], Generic[Kind]):
    """Ordered by people and keys, carried out by the clock."""

    prefix = ""
    """Of its keys."""
    done_verb = "Done"
    change_form_outer_before_template = "batcher/admin/_walk_progress.html"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Kind], search_term: str
    ) -> tuple[QuerySet[Kind], bool]:
        """Find by key, whole or its beginning."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.key_is(term, self.prefix)
        return (queryset.filter(named) if named else queryset.none()), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one; to htmx, its progress alone, and that there is no more to come."""
        context = {**(extra_context or {})}
        if (row := self.row_at(request, object_id)) is not None:
            context |= {"row": row, "page": shown.page_of(row), "done_verb": self.done_verb}
            context |= {"why": self.explained(row, timezone.now()), "figures": self.figures(row)}
            context |= {"reasons": self.reasons(row)}
        is_part = bool(getattr(request, "htmx", False)) and row is not None
        if is_part and self.has_view_permission(request, row):
            return self._renewed(request, context, is_over=row is not None and not row.is_running)
        return super().change_view(request, object_id, form_url, context)

    def _renewed(
        self, request: HttpRequest, context: dict[str, Any], *, is_over: bool
    ) -> HttpResponse:
        """Return the progress; at the end the whole page is read anew, for its buttons have changed."""
        page = TemplateResponse(
            request,
            self.change_form_outer_before_template,
            context,
            status=STOP_POLLING if is_over else None,
        )
        if is_over:
            page["HX-Refresh"] = "true"
        return page

    def reasons(self, row: Kind) -> list[tuple[str, int]]:
        """Return why rows were skipped, and how many for each reason; none where nobody keeps that."""
        return []

    def explained(self, row: Kind, now: datetime) -> str:
        """Return in a sentence what it does now and what comes next."""
        if not row.is_running:
            ended = f"{row.ended_at:%Y-%m-%d %H:%M:%S} UTC" if row.ended_at else "some time"
            return self.ended(row, ended)
        if row.error:
            return f"Its last step failed and is taken again at {row.next_step_at:%H:%M:%S} UTC: {row.error}"
        late = now - row.next_step_at
        if late.total_seconds() > _LATE_S:
            return f"Its next step has been due for {shown.duration(late)}: does the clock tick, does a worker run?"
        return self.under_way(row)

    def under_way(self, row: Kind) -> str:
        """Return what a running one does."""
        raise NotImplementedError

    def ended(self, row: Kind, at: str) -> str:
        """Return how it ended; ``at`` says when."""
        raise NotImplementedError

    def figures(self, row: Kind) -> list[tuple[str, str]]:
        """Return what its page shows of its progress, with names."""
        matched = f"{row.counted:,} so far" if row.matched is None else f"{row.matched:,}"
        return [
            ("Matched", matched),
            (self.done_verb, f"{row.done:,}"),
            ("Skipped", f"{row.skipped:,}"),
            ("Ended", shown.moment(row.ended_at)),
        ]

    @admin.display(description="Key")
    def name(self, row: Kind) -> str:
        """The beginning of its key, as the search takes it."""
        return shown.cut_short(str(row), 18)

    @admin.display(description="State")
    def badge(self, row: Kind) -> SafeString:
        """How it stands."""
        return state_badge(row.state)

    @admin.display(description="Done · skipped · left")
    def progress(self, row: Kind) -> SafeString | str:
        """How many had their turn by now, how many were not to be done, how many are left."""
        if row.matched is None:
            return f"counting, {row.counted:,} so far" if row.is_running else "not counted"
        if not row.matched:
            return "nothing matched"
        return shown.progress(row.done, row.skipped, total=row.matched)

    @admin.display(description="Why")
    def why(self, row: Kind) -> SafeString:
        """The reason that was given, and by whom."""
        return shown.two_lines(
            shown.cut_short(row.reason, 40), shown.cut_short(self.ordered_by(row), 36)
        )

    @admin.display(description="By")
    def ordered_by(self, row: Kind) -> str:
        """A person or an API key."""
        return row.who if row.user_id is None else f"user {row.who}"

    @admin.display(description="Age")
    def age(self, row: Kind) -> SafeString | str:
        """Time since it was ordered."""
        return shown.age(row.created_at)
