"""Batches: where they are, since when, what they hold, why they wait, and what a person may do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db.models import Count
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldBooleanWidget

from batching import order, queueing, steering
from batching.admin import searching, shown
from batching.admin.history import history_of
from batching.admin.moves import Move, ReasonForm, sources_of
from batching.admin.rows import MachineRows
from batching.admin.run_orders import WideMoves
from batching.admin.standings import BatchStandingFilter
from batching.lifecycle import BATCH_ENDS, BatchState, RequestState
from batching.models import Batch, Lane, Request
from batching.models.batches import IN_LINE
from batching.templatetags.badges import state_badge
from delivery import redelivery, why

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor

OPERATE = "batching.operate_batch"
TROUBLED_SHOWN = 10
LANES_OFFERED = 500
_BAD_STATES = (
    RequestState.FAILED,
    RequestState.EXPIRED,
    RequestState.CANCELLED,
    RequestState.DELIVERY_FAILED,
)


class DeleteForm(ReasonForm):
    """Asks whether results that were not delivered may go, too."""

    with_undelivered = forms.BooleanField(
        required=False,
        label="Also results that were not delivered",
        help_text="Without it, a batch that holds such results stays.",
        widget=UnfoldBooleanWidget,
    )
    field_order = ("with_undelivered", "reason")


def _redeliver_all(batch: Batch, *, by: Actor, reason: str, now: datetime) -> int:
    return redelivery.redeliver_batch(batch, only_failed=False, by=by, reason=reason, now=now)


def _redeliver_failed(batch: Batch, *, by: Actor, reason: str, now: datetime) -> int:
    return redelivery.redeliver_batch(batch, only_failed=True, by=by, reason=reason, now=now)


class BeforeForm(ReasonForm):
    """Asks for the batch that another one is to go before."""

    other = forms.ModelChoiceField(
        Batch.objects.filter(state__in=order.MOVABLE),
        label="Before batch",
        help_text="Its number. It waits in the same lane.",
        widget=UnfoldAdminIntegerFieldWidget,
        error_messages={"invalid_choice": "No batch of this number waits."},
    )
    field_order = ("other", "reason")


class PriorityForm(ReasonForm):
    """Asks for a priority."""

    priority = forms.IntegerField(
        min_value=queueing.PRIORITIES[0],
        max_value=queueing.PRIORITIES[-1],
        help_text="-100 to 100; higher goes first.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    field_order = ("priority", "reason")


_MOVABLE = frozenset(order.MOVABLE)
ORDER_MOVES = (
    Move(
        name="pause",
        label="Pause",
        effect="The batch is not started, and keeps its place. If the provider holds it already, it is finished and "
        "delivered.",
        permission=OPERATE,
        act=queueing.pause,
        states=frozenset(queueing.PAUSABLE),
        icon="pause_circle",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="The batch may be started again, from the place that it kept.",
        permission=OPERATE,
        act=queueing.resume,
        states=frozenset(queueing.PAUSABLE),
        icon="play_circle",
    ),
    Move(
        name="move_top",
        label="Move to top",
        effect="The batch goes before all others of its lane, with the priority of the first.",
        permission=OPERATE,
        act=queueing.move_to_top,
        states=_MOVABLE,
        icon="vertical_align_top",
        is_for_one=True,
    ),
    Move(
        name="move_bottom",
        label="Move to bottom",
        effect="The batch goes behind all others of its lane, with the priority of the last.",
        permission=OPERATE,
        act=queueing.move_to_bottom,
        states=_MOVABLE,
        icon="vertical_align_bottom",
    ),
    Move(
        name="move_before",
        label="Move before…",
        effect="The batch goes right before another one of its lane, with that one's priority.",
        permission=OPERATE,
        act=queueing.move_before,
        states=_MOVABLE,
        icon="move_up",
        form=BeforeForm,
        is_for_one=True,
    ),
    Move(
        name="priority",
        label="Set priority",
        effect="Batches with a higher priority go first, whatever their age.",
        permission=OPERATE,
        act=queueing.set_priority,
        states=_MOVABLE,
        icon="flag",
        form=PriorityForm,
    ),
    Move(
        name="promote",
        label="Promote now",
        effect="The batch goes before all others as soon as there is room. It skips the order, not the capacity.",
        permission=OPERATE,
        act=queueing.promote,
        states=frozenset(IN_LINE),
        icon="rocket_launch",
    ),
)
MOVES = (
    *ORDER_MOVES,
    Move(
        name="seal",
        label="Seal",
        effect="The batch takes no more requests and is sent as soon as its lane has room.",
        permission=OPERATE,
        act=steering.seal,
        states=sources_of(Batch, "seal"),
        icon="inventory_2",
    ),
    Move(
        name="cancel",
        label="Cancel",
        effect="The provider is asked to stop if it holds the batch. Answers that are finished are kept "
        "and delivered; every other request ends as cancelled, and its client is told.",
        permission=OPERATE,
        act=steering.cancel_batch,
        calls_outside=True,
        states=sources_of(Batch, "cancel", "ask_to_cancel"),
        icon="cancel",
        is_dangerous=True,
    ),
    Move(
        name="restart",
        label="Restart",
        effect="What is unfinished is sent to the provider again; answers that are there stay untouched.",
        permission=OPERATE,
        act=steering.restart_batch,
        states=sources_of(Batch, "restart"),
        icon="restart_alt",
    ),
    Move(
        name="redeliver",
        label="Redeliver",
        effect="Every result of the batch is sent to its destination again, under the same message id.",
        permission=OPERATE,
        act=_redeliver_all,
        states=sources_of(Batch, "redeliver"),
        icon="outbox",
    ),
    Move(
        name="redeliver_failed",
        label="Redeliver failed",
        effect="Only results whose delivery was given up are sent to their destinations again.",
        permission=OPERATE,
        act=_redeliver_failed,
        states=frozenset({BatchState.PARTIALLY_DELIVERED, BatchState.DELIVERY_FAILED}),
        icon="replay",
    ),
    Move(
        name="remove",  # "delete" is the name of Django's own page
        label="Delete",
        effect="The batch is removed for good, with its requests, their answers and its files at the provider. "
        "This can not be undone.",
        permission="batching.delete_batch",
        act=steering.delete_batch,
        form=DeleteForm,
        calls_outside=True,
        states=BATCH_ENDS | {BatchState.READY_TO_DELIVER, BatchState.DELIVERING},
        icon="delete",
        is_dangerous=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many requests of a batch stand at one state."""

    state: str
    count: int
    url: str
    """The list of exactly these."""


class LaneFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Batches of one lane."""

    title = "lane"
    parameter_name = "lane"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer the lanes, their accounts fetched along."""
        lanes = Lane.objects.select_related("account").order_by("model", "endpoint")
        return [(str(lane.pk), str(lane)) for lane in lanes[:LANES_OFFERED]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Batch]) -> QuerySet[Batch]:
        """Keep the batches of that lane; none when it is no lane's number."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.number_is(term, "lane_id")
        return queryset.filter(named) if named is not None else queryset.none()


@admin.register(Batch)
class BatchAdmin(WideMoves[Batch], MachineRows[Batch]):
    """Made by the machine, moved by operators."""

    moves = MOVES
    list_display = (
        "name", "badge", "in_state", "its_lane", "requests", "outcome", "tokens", "age",
    )  # fmt: skip
    list_display_links = ("name",)
    list_select_related = ("lane__account",)
    list_before_template = "batcher/admin/_batches_head.html"
    list_filter = (("state", ChoicesDropdownFilter), LaneFilter, BatchStandingFilter)
    search_fields = ("key",)
    search_help_text = "Number, key (bat_…) or provider's id (batch_…)"
    deferred_in_lists = ("provider_object", "last_error")
    change_form_outer_before_template = "batcher/admin/_batch_head.html"
    fieldsets = (
        ("Batch", {"fields": (
            ("key", "lane"), ("created_at", "seal_by"), ("requests", "size"), ("tokens", "deliver_by"),
        )}),
        ("Step at hand", {"fields": (
            ("badge", "state_changed_at"), ("tries", "next_attempt_at"), ("wait_reason", "waiting_since"),
            ("place", "priority"), ("paused_at", "pause_reason"), ("promoted_at", "overtaken"),
            ("token_limit_tries", "deaths"), ("origin", "splits"), "error",
        )}),
        ("At the provider", {"fields": (
            ("provider_batch_id", "provider_status"), ("polled_at", "provider_expires_at"),
            ("provider_completed", "provider_failed"), "input_file_id", "output_file_id",
            "error_file_id",
        )}),
        ("Outcome", {"fields": (
            ("answered_count", "failed_count"), "ignored_lines",
            ("input_tokens", "cached_tokens"), ("output_tokens", "reasoning_tokens"), "cost",
        )}),
        ("The provider's own object", {"classes": ("collapse",), "fields": ("provider_json",)}),
    )  # fmt: skip
    readonly_fields = (
        "badge",
        "place",
        "requests",
        "size",
        "tokens",
        "cost",
        "error",
        "provider_json",
    )

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
        """Show a batch with its sentence, its requests by state, its troubles and its history."""
        batch = self.row_at(request, object_id)
        if batch is not None:
            extra_context = {**(extra_context or {}), **_surroundings(batch)}
        return super().change_view(request, object_id, form_url, extra_context)

    @admin.display(description="Batch")
    def name(self, batch: Batch) -> str:
        """Number, as people say it."""
        return f"#{batch.pk}"

    @admin.display(description="State")
    def badge(self, batch: Batch) -> SafeString:
        """State as colour, icon and word."""
        return state_badge(batch.state)

    @admin.display(description="For")
    def in_state(self, batch: Batch) -> SafeString | str:
        """Time in this state."""
        return shown.age(batch.state_changed_at)

    @admin.display(description="Lane")
    def its_lane(self, batch: Batch) -> SafeString:
        """Model over endpoint."""
        return shown.two_lines(
            batch.lane.model, f"{batch.lane.endpoint} · {batch.lane.account.name}"
        )

    @admin.display(description="Requests")
    def requests(self, batch: Batch) -> SafeString:
        """How many it holds, linked to them."""
        url = shown.list_of("batching.request", batch=batch.pk)
        return shown.link(url, shown.number(batch.request_count))

    @admin.display(description="Ok · failed · left")
    def outcome(self, batch: Batch) -> SafeString | str:
        """What came of them so far, as figures with a bar."""
        ok = _first(batch.answered_count, batch.provider_completed)
        failed = _first(batch.failed_count, batch.provider_failed)
        return shown.progress(ok, failed, total=batch.request_count)

    @admin.display(description="Size")
    def size(self, batch: Batch) -> str:
        """Bytes of its input file."""
        return shown.size(batch.size_bytes)

    @admin.display(description="Tokens (est.)")
    def tokens(self, batch: Batch) -> str:
        """Estimated tokens of its input."""
        return shown.number(batch.token_estimate)

    @admin.display(description="Age")
    def age(self, batch: Batch) -> SafeString | str:
        """Time since its first request."""
        return shown.age(batch.created_at)

    @admin.display(description="Cost")
    def cost(self, batch: Batch) -> str:
        """What its answers cost, in US$."""
        return shown.money(batch.cost_nano)

    @admin.display(description="Place")
    def place(self, batch: Batch) -> SafeString | str:
        """Where it stands in its lane, linked to the whole line."""
        found = order.place_of(batch)
        return shown.link(shown.page_of(batch.lane), found) if found else shown.NOTHING

    @admin.display(description="Last error")
    def error(self, batch: Batch) -> SafeString | str:
        """What went wrong last, as it came."""
        return shown.long_text(batch.last_error)

    @admin.display(description="As received last")
    def provider_json(self, batch: Batch) -> SafeString | str:
        """The provider's object, indented."""
        return shown.pretty(batch.provider_object)


def _first(*values: int | None) -> int:
    """Return the first figure that is known, else 0."""
    return next((value for value in values if value is not None), 0)


def _surroundings(batch: Batch) -> dict[str, Any]:
    """Return what a batch's page shows around its fields."""
    troubled = Request.objects.filter(batch=batch, state__in=_BAD_STATES).order_by("state", "pk")
    return {
        "why": why.of_batch(batch, timezone.now()),
        "row": batch,
        "shares": _shares(batch),
        "requests_url": shown.list_of("batching.request", batch=batch.pk),
        "troubled": [(request, shown.page_of(request)) for request in troubled[:TROUBLED_SHOWN]],
        "history": history_of(batch),
    }


def _shares(batch: Batch) -> list[Share]:
    """Count a batch's requests by state: one query, over one index."""
    rows = Request.objects.filter(batch=batch).order_by().values_list("state")
    counts = dict(rows.annotate(count=Count("pk")))
    return [
        Share(
            state=str(state),
            count=counts[state],
            url=shown.list_of("batching.request", batch=batch.pk, state__exact=str(state)),
        )
        for state in RequestState
        if state in counts
    ]
