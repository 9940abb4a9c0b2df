"""Attempts, refused messages and the intake's state in the admin: all read-only, newest first.

The beginning of a refused message may hold a prompt: like any body it is shown to those who may open bodies.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils import timezone

from batching.admin import searching, shown
from batching.admin.keyset import KeysetRows
from batching.admin.payloads import PAYLOAD_PERMISSION
from batching.admin.request_reading import DestinationFilter
from batching.admin.rows import MachineRows
from batching.templatetags.badges import BAD, GOOD, QUIET, WARNING, badge, outcome_badge
from delivery import event_admin, replay_admin  # noqa: F401  # they register their pages
from delivery.models import Attempt, IntakeStatus, Rejection

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

SILENT_AFTER = timedelta(seconds=60)


class AtDestination(DestinationFilter):
    """Attempts at one destination, by its key or name."""

    title = "destination (key or name)"


@admin.register(Attempt)
class AttemptAdmin(KeysetRows[Attempt], MachineRows[Attempt]):
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
    list_filter = (AtDestination,)
    search_fields = ("request__key",)
    search_help_text = "Key of a request (req_…)"
    deferred_in_lists = ("answer",)
    fieldsets = (
        ("Attempt", {"fields": (
            ("its_request", "place"), ("number", "is_replay"), ("started_at", "ended_at", "took"),
            ("body_sha256", "body_size"), "next_at",
        )}),
        ("What came of it", {"fields": (
            ("badge", "status"), ("address", "error_class"), "detail", "said",
        )}),
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


@admin.register(Rejection)
class RejectionAdmin(MachineRows[Rejection]):
    """Written by the intake, one for each message that it refused."""

    list_display = ("received", "code", "detail", "queue", "its_size", "counts")
    list_display_links = ("received",)
    search_fields = ("sha256",)
    search_help_text = "SHA-256 of a message"
    deferred_in_lists = ("faults", "beginning")
    readonly_fields = ("its_size", "counts", "what_is_wrong", "begins")

    def get_fieldsets(self, request: HttpRequest, obj: Rejection | None = None) -> Any:
        """Show of the message itself nothing to those who may not open bodies."""
        shown_of_it: tuple[str, ...] = ("sha256", "its_size")
        if request.user.has_perm(PAYLOAD_PERMISSION):
            shown_of_it = (*shown_of_it, "begins")
        return (
            ("Refused", {"fields": (
                ("received_at", "queue"), ("project_name", "message_id"), ("code", "counts"),
                "what_is_wrong",
            )}),
            ("The message", {"fields": shown_of_it}),
        )  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Rejection], search_term: str
    ) -> tuple[QuerySet[Rejection], bool]:
        """Find a message by its bytes' digest."""
        term = search_term.strip().lower()
        return (queryset.filter(sha256=term) if term else queryset), False

    @admin.display(description="Received")
    def received(self, rejection: Rejection) -> SafeString | str:
        """How long ago."""
        return shown.age(rejection.received_at)

    @admin.display(description="Size")
    def its_size(self, rejection: Rejection) -> str:
        """Bytes of the message."""
        return shown.size(rejection.size_bytes)

    @admin.display(description="Requests")
    def counts(self, rejection: Rejection) -> str:
        """How many were wrong, and how many of the same message were kept."""
        return f"{rejection.fault_count:,} wrong, {rejection.taken_count:,} stored"

    @admin.display(description="What is wrong")
    def what_is_wrong(self, rejection: Rejection) -> SafeString | str:
        """The first faults, one a line."""
        return shown.long_text(rejection.faults)

    @admin.display(description="Begins with")
    def begins(self, rejection: Rejection) -> SafeString | str:
        """The first 2 kB."""
        return shown.long_text(rejection.beginning)


_TONES = {
    IntakeStatus.State.CONSUMING: (GOOD, "play_circle"),
    IntakeStatus.State.PAUSED: (WARNING, "pause_circle"),
    IntakeStatus.State.STOPPED: (QUIET, "stop_circle"),
}


@admin.register(IntakeStatus)
class IntakeStatusAdmin(MachineRows[IntakeStatus]):
    """Written by the intake itself; one that has not been seen for a while does not run."""

    list_display = ("queue", "badge", "detail", "lasts", "seen")
    fields = ("queue", "badge", "detail", "since", "seen_at")
    readonly_fields = ("badge",)

    @admin.display(description="Now")
    def badge(self, status: IntakeStatus) -> SafeString:
        """What it does; red when it can't work or says nothing any more."""
        is_stopped = status.state == IntakeStatus.State.STOPPED
        if not is_stopped and timezone.now() - status.seen_at > SILENT_AFTER:
            return badge("no sign of life", tone=BAD, icon="error")
        tone, icon = _TONES.get(IntakeStatus.State(status.state), (BAD, "error"))
        return badge(status.get_state_display().lower(), tone=tone, icon=icon)

    @admin.display(description="For")
    def lasts(self, status: IntakeStatus) -> SafeString | str:
        """How long it has been so."""
        return shown.age(status.since)

    @admin.display(description="Seen")
    def seen(self, status: IntakeStatus) -> SafeString | str:
        """Its last sign of life."""
        return shown.age(status.seen_at)
