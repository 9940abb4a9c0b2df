"""Submissions: what clients sent together, how far each is, and stopping one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.db.models import IntegerField, Q
from django.db.models.expressions import RawSQL
from django.template.response import TemplateResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching import clientbatch
from batching.admin import running, searching, shown, submission_page
from batching.admin.exporting import EXPORT
from batching.admin.keyset import KeysetRows
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import MachineRows
from batching.admin.walks import STOP_POLLING
from batching.lifecycle import RequestState
from batching.models import Request, Submission
from batching.steering import Refused

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor

MOST_OPEN: Final = 2_000
"""Open requests of one submission that its list counts."""
_OPEN: Final = f"""(SELECT COUNT(*) FROM (
    SELECT 1 FROM {Request._meta.db_table} AS r
    WHERE r.submission_id = {Submission._meta.db_table}.id AND r.state IN ('pending', 'processing')
    LIMIT {MOST_OPEN + 1}
) AS still_open)"""  # noqa: S608  # our own names; the partial index request_submission_open answers it


def cancel(row: Submission, *, by: Actor, reason: str, now: datetime) -> str:
    """Take back what is not sent yet. Raises Refused when there is nothing to take back."""
    if row.kind != Submission.Kind.UPLOAD:
        clientbatch.cancel(row, now)
        return "What no provider has is taken back within seconds; the rest is waited for"
    if not _waits(row):
        raise Refused("nothing_to_do", "none of its requests waits any more")
    requests = running.admin_of("batching.request")
    move = next(move for move in requests.moves if move.name == "cancel")
    query = f"submission={row.key}&state__exact=pending"
    run = running.start(requests, move, by=by, query=query, reason=reason, answers={}, now=now)
    return f"Run {run.key} takes back what waits, within seconds"


def _waits(row: Submission) -> bool:
    """Return whether there may be anything to take back."""
    rows = Request.objects.undecided().filter(submission=row)
    if row.kind == Submission.Kind.UPLOAD:
        return rows.filter(state=RequestState.PENDING).exists()
    return row.in_progress_at is None or rows.exists()


MOVES = (
    Move(
        name="cancel",
        label="Cancel",
        effect="Its requests that no provider has yet are taken back, in the background, and their client is told. "
        "What a provider has is answered and delivered as usual, unless a batch holds nothing else.",
        permission="batching.operate_request",
        act=cancel,
        icon="cancel",
        is_dangerous=True,
    ),
)


@admin.register(Submission)
class SubmissionAdmin(MovesAdmin[Submission], KeysetRows[Submission], MachineRows[Submission]):
    """Made at intake."""

    moves = MOVES
    list_display = ("name", "kind", "project", "progress", "taken", "took", "age", "its_requests")
    list_display_links = ("name",)
    list_select_related = ("project",)
    list_filter = (("project", RelatedDropdownFilter), ("kind", ChoicesDropdownFilter))
    search_fields = ("key",)
    search_help_text = "Key (sub_…)"
    change_form_outer_before_template = "batcher/admin/_submission_head.html"
    fieldsets = (
        ("Submission", {"fields": (
            ("key", "kind"), ("project", "api_key"), ("created_at", "finished_at"),
        )}),
        ("Client's batch", {"fields": (
            ("endpoint", "input_file"), ("completion_window", "expires_at"), "metadata",
            ("in_progress_at", "finalizing_at", "completed_at"),
            ("cancelling_at", "cancelled_at", "failed_at"), ("completed_count", "failed_count"),
            ("cancelled_count", "expired_count", "deleted_at"),
            "line_errors", ("next_attempt_at", "last_error"),
        )}),
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Submission]:
        """Let lists know how many requests of each are open, up to a cap."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        if match and str(match.url_name).endswith("_changelist"):
            return rows.annotate(still_open=RawSQL(_OPEN, (), output_field=IntegerField()))  # noqa: S611
        return rows

    def get_fieldsets(self, request: HttpRequest, obj: Submission | None = None) -> Any:
        """Leave out what only a client's batch has."""
        is_upload = obj is not None and obj.kind == Submission.Kind.UPLOAD
        return self.fieldsets[:1] if is_upload else self.fieldsets

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer to stop only what has not ended."""
        row = self.row_at(request, str(object_id))
        is_open = row is not None and not row.is_final and _waits(row)
        return super().get_actions_detail(request, object_id) if is_open else []

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Submission], search_term: str
    ) -> tuple[QuerySet[Submission], bool]:
        """Find by key, whole or its beginning."""
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(searching.key_is(term, "sub") or Q(pk__in=[])), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a submission; its requests are counted at once when they are few, or when htmx asks."""
        row, is_part = self.row_at(request, object_id), bool(getattr(request, "htmx", False))
        context = {**(extra_context or {}), "may_export": request.user.has_perm(EXPORT)}
        if row is not None and self.has_view_permission(request, row):
            is_small = row.accepted <= submission_page.MOST_AT_ONCE
            counts = is_small or is_part or "count" in request.GET
            context |= submission_page.surroundings(row, counts=counts)
            if is_part:
                status = STOP_POLLING if context["is_final"] else None
                part = self.change_form_outer_before_template
                return TemplateResponse(request, part, context, status=status)
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description="Key")
    def name(self, row: Submission) -> str:
        """The beginning of its key, as the search takes it."""
        return shown.cut_short(row.key, 18)

    @admin.display(description="Ended")
    def progress(self, row: Submission) -> SafeString | str:
        """How many of its requests have an end, with a bar that says the same to the eye."""
        still_open = getattr(row, "still_open", 0)
        if row.failed_at:
            return "refused"
        if not row.accepted:
            return shown.NOTHING
        if still_open > MOST_OPEN:
            return f"more than {MOST_OPEN:,} open"
        ended = max(0, row.accepted - still_open)
        words = "all" if not still_open else f"{ended:,}"
        return format_html(
            '<span class="b-progress"><span class="b-nowrap">{} of {}</span>'
            '<progress class="b-bar" max="{}" value="{}" aria-hidden="true"></progress></span>',
            words, f"{row.accepted:,}", row.accepted, ended,
        )  # fmt: skip

    @admin.display(description="Not taken")
    def taken(self, row: Submission) -> str:
        """Lines that were there already, and lines that were wrong."""
        parts = [f"{row.duplicates:,} known"] if row.duplicates else []
        parts += [f"{row.rejected:,} wrong"] if row.rejected else []
        return ", ".join(parts) or shown.NOTHING

    @admin.display(description="Took")
    def took(self, row: Submission) -> str:
        """A client's batch: until its end; an upload: until it was stored."""
        until = row.ended_at or (row.finished_at if row.kind == Submission.Kind.UPLOAD else None)
        return shown.duration(until - row.created_at) if until else shown.NOTHING

    @admin.display(description="Age")
    def age(self, row: Submission) -> SafeString | str:
        """Time since it came."""
        return shown.age(row.created_at)

    @admin.display(description="Requests")
    def its_requests(self, row: Submission) -> SafeString:
        """Link to them."""
        return shown.link(shown.list_of("batching.request", submission=row.key), "show requests")
