"""Requests: found by id, filtered by state, shown with their whole way from intake to delivery."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin
from django.db.models import Prefetch
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminTextInputWidget

from batching import steering, steering_sets
from batching.admin import exporting, replay_orders, request_page, request_reading, searching, shown
from batching.admin.keyset import KeysetRows
from batching.admin.moves import Move, ReasonForm, sources_of
from batching.admin.page_sizes import SizedList
from batching.admin.payloads import (
    PAYLOAD_PERMISSION,
    compare_view,
    part_view,
    payload_view,
    raw_view,
)
from batching.admin.request_filters import (
    BatchFilter,
    CauseFilter,
    DueFilter,
    GivenUpFilter,
    SubmissionFilter,
)
from batching.admin.request_reading import (
    AccountFilter,
    DestinationFilter,
    FromFilter,
    LaneFilter,
    ModelFilter,
    OutcomeFilter,
    ToFilter,
)
from batching.admin.request_times import DeliveredFilter, EndedFilter, ErrorFilter
from batching.admin.rows import MachineRows
from batching.admin.run_orders import WideMoves
from batching.admin.saved_views import SavedViews
from batching.admin.walks import STOP_POLLING
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Answer, Destination, Project, Request
from batching.steering import Refused
from batching.templatetags.badges import state_badge
from batching.wire import NOBODY, Delivery, read_delivery
from delivery import discards, outgoing, redelivery, redirecting

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString

    from batching.admin.keyset import Place
    from batching.lifecycle import Actor
    from batching.models.requests import RequestQuerySet

OPERATE = "batching.operate_request"


class RedirectForm(ReasonForm):
    """Asks where to as well."""

    to = forms.CharField(
        max_length=2048,
        label="Destination",
        help_text="Of the request's project: its name, its key (dst_…) or a webhook's URL; or “none”: the client pulls.",
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True}),
    )
    field_order = ("to", "reason")


def redirect(row: Request, *, to: str, by: Actor, reason: str, now: datetime) -> str:
    """Send a request's result elsewhere; ``to`` is what the form asked for."""
    delivery = Delivery(type="destination", name=to)
    if to == "none":
        delivery = NOBODY
    elif to.startswith(("https://", "http://")):
        delivery = Delivery(type="webhook", url=_fit_for_webhook(to))
    elif to.startswith("dst_"):
        found = Destination.objects.present().filter(project=row.project_id, key=to).first()
        if found is None:
            raise Refused("unknown_destination", f"no destination {to!r}")
        delivery = read_delivery(json.dumps(found.config).encode())
    redirecting.redirect_request(row, to=delivery, by=by, reason=reason, now=now)
    return f"{row} goes to {row.destination or 'whoever pulls it'}"


def _fit_for_webhook(url: str) -> str:
    try:
        return str(outgoing.guard().check_url(url))
    except ValueError as problem:
        raise Refused("validation_error", str(problem)) from problem


MOVES = (
    Move(
        name="cancel",
        label="Cancel",
        effect="The request is taken back before it is sent, and its client is told that it was cancelled. One "
        "that the provider has already can only be stopped with its batch.",
        permission=OPERATE,
        act=steering.cancel_request,
        act_on_many=steering_sets.cancel_requests,
        states=frozenset({RequestState.PENDING}),
        icon="cancel",
        is_dangerous=True,
    ),
    Move(
        name="retry",
        label="Retry",
        effect="The request is packed into a new batch and sent to the provider again, as its next attempt. "
        "That costs money again.",
        permission=OPERATE,
        act=steering.retry_request,
        act_on_many=steering_sets.retry_requests,
        states=BAD_ENDS,
        icon="restart_alt",
    ),
    Move(
        name="redeliver",
        label="Redeliver",
        effect="The result is sent to its destination again, under the same message id.",
        permission=OPERATE,
        act=redelivery.redeliver_request,
        wide_page="admin:batching_request_replay",
        states=sources_of(Request, "redeliver") | BAD_ENDS,
        icon="outbox",
    ),
    Move(
        name="redirect",
        label="Redirect",
        effect="What waits to be delivered goes to the new place at once, under the same message id. What was "
        "delivered or given up stays so until it is redelivered.",
        permission=OPERATE,
        act=redirect,
        states=frozenset(RequestState.values) - {RequestState.DELIVERING},
        icon="alt_route",
        form=RedirectForm,
    ),
    Move(
        name="discard",
        label="Discard",
        effect="It stays undelivered and is kept, but is a dead letter no more: nothing asks you to care for it. It can "
        "be taken back, or redelivered, at any time.",
        permission=OPERATE,
        act=discards.discard,
        act_on_many=discards.discard_many,
        states=BAD_ENDS | {RequestState.DELIVERY_FAILED},
        icon="delete_sweep",
    ),
    Move(
        name="take_back",
        label="Take back",
        effect="What was discarded waits for a person again, among the dead letters.",
        permission=OPERATE,
        act=discards.take_back,
        act_on_many=discards.take_back_many,
        states=BAD_ENDS | {RequestState.DELIVERY_FAILED},
        icon="undo",
    ),
)


@admin.register(Request)
class RequestAdmin(
    WideMoves[Request], SavedViews[Request], KeysetRows[Request], MachineRows[Request]
):
    """Made by clients and the machine, moved by operators."""

    moves = MOVES
    teaches = "Programs send them: the overview shows how to send the first one."
    list_display = (
        "name", "its_project", "its_lane", "badge", "batch_link", "delivery", "age", "its_tokens", "cost",
    )  # fmt: skip
    list_display_links = ("name",)
    list_select_related = ("lane", "destination", "project")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        OutcomeFilter,
        ("project", RelatedDropdownFilter),
        ModelFilter,
        LaneFilter,
        AccountFilter,
        BatchFilter,
        SubmissionFilter,
        DestinationFilter,
        FromFilter,
        ToFilter,
        DueFilter,
        GivenUpFilter,
        CauseFilter,
        DeliveredFilter,
        EndedFilter,
        ErrorFilter,
    )
    search_fields = ("custom_id",)
    search_help_text = "custom_id, its beginning (abc*), or a key (req_…)"
    change_form_outer_before_template = "batcher/admin/_request_head.html"
    list_before_template = "batcher/admin/_requests_head.html"
    fieldsets = (
        ("Request", {"fields": (
            "custom_id", ("key", "project"), ("lane", "batch"), ("submission", "created_at"),
            ("priority", "attempt"), ("seal_by", "deliver_by"), ("size", "tokens"),
        )}),
        ("Answer", {"fields": (
            ("badge", "settled_at"), "cost", "error_code", "error",
        )}),
        ("Delivery", {"fields": (
            "destination", ("due_at", "tries"), ("delivered_at", "dead_at"), ("discarded_at", "replays"),
        )}),
    )  # fmt: skip
    readonly_fields = ("badge", "size", "tokens", "cost", "error")

    def get_urls(self) -> list[URLPattern]:
        """Add the order of a replay, and the body and answer viewer, with permissions of their own."""
        pages = (
            ("new/", request_reading.new_view, "new"),
            ("export/", exporting.order_view, "export"),
            ("replay/", replay_orders.order_listed, "replay"),
            ("<path:object_id>/payload/", payload_view, "payload"),
            ("<path:object_id>/payload/<slug:part>/", raw_view, "raw"),
            ("<path:object_id>/part/<slug:part>/", part_view, "part"),
            ("<path:object_id>/compare/", compare_view, "compare"),
        )
        wrap, given = self.admin_site.admin_view, {"request_admin": self}
        ours = [
            path(address, wrap(view), given, name=f"batching_request_{name}")
            for address, view, name in pages
        ]
        return [*ours, *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[SizedList]:
        """Read by row id, frozen while it is read."""
        return SizedList

    def span_of(
        self, given: dict[str, str], query: str, rows: QuerySet[Request], place: Place
    ) -> tuple[int, int] | None:
        """Return between which ids to look for these rows; None: an index serves them."""
        if request_reading.is_served(given, query, rows):
            return None
        return request_reading.span_of(given, place)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Request]:
        """Let lists have what answers cost, without the answers."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match and str(match.url_name).endswith("_changelist")
        answers = Prefetch("answers", Answer.objects.defer("line").order_by("attempt"))
        return rows.prefetch_related(answers) if is_list else rows

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Offer the export of what is listed to those who may order it."""
        may = {"may_export": request.user.has_perm(exporting.EXPORT)}
        return super().changelist_view(request, {**(extra_context or {}), **may})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Request], search_term: str
    ) -> tuple[QuerySet[Request], bool]:
        """Find by key, by exact custom_id, or by its beginning when the term ends with a star."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.key_is(term, "req")
        if named is not None and queryset.filter(named).exists():
            return queryset.filter(named), False
        # The index leads with the project: naming every project lets it serve a search over all of them.
        projects = list(Project.objects.values_list("pk", flat=True))
        rows = queryset.filter(project_id__in=projects)
        if term.endswith("*"):
            return cast("RequestQuerySet", rows).custom_id_begins(term[:-1]), False
        return rows.filter(custom_id=term), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a request with its sentence, its way and its attempts; to htmx, what moves of that alone."""
        row = self.row_at(request, object_id)
        if row is not None:
            may_read = request.user.has_perm(PAYLOAD_PERMISSION)
            around = request_page.surroundings(row, may_read=may_read)
            extra_context = {**(extra_context or {}), **around}
            if getattr(request, "htmx", False) and self.has_view_permission(request, row):
                status = STOP_POLLING if around["is_final"] else None
                part = "batcher/admin/_request_moving.html"
                return TemplateResponse(request, part, extra_context, status=status)
        return super().change_view(request, object_id, form_url, extra_context)

    @admin.display(description="Custom id")
    def name(self, row: Request) -> str:
        """The client's id, cut."""
        return row.custom_id if len(row.custom_id) <= 60 else f"{row.custom_id[:60]}…"

    @admin.display(description="State")
    def badge(self, row: Request) -> SafeString:
        """State as colour, icon and word."""
        return state_badge(row.state)

    @admin.display(description="Project")
    def its_project(self, row: Request) -> str:
        """Whose it is, without a link: the row's own link is enough of them."""
        return shown.cut_short(str(row.project), 24)

    @admin.display(description="Model")
    def its_lane(self, row: Request) -> SafeString:
        """Model over endpoint."""
        return shown.two_lines(row.lane.model, row.lane.endpoint)

    @admin.display(description="Batch")
    def batch_link(self, row: Request) -> SafeString | str:
        """The batch that holds it, without fetching it, and which attempt that is."""
        attempt = f"attempt {row.attempt}"
        if row.batch_id is None:
            return shown.two_lines("no batch", attempt)
        link = shown.link(shown.page_at("batching.batch", row.batch_id), f"#{row.batch_id}")
        return shown.two_lines(link, attempt)

    @admin.display(description="Delivery")
    def delivery(self, row: Request) -> SafeString | str:
        """How its delivery stands, and where to."""
        if row.destination is None:
            return "client pulls"
        return shown.two_lines(_delivery_of(row), shown.cut_short(str(row.destination), 32))

    @admin.display(description="Age")
    def age(self, row: Request) -> SafeString | str:
        """Time since intake."""
        return shown.age(row.created_at)

    @admin.display(description="Size")
    def size(self, row: Request) -> str:
        """Bytes of its line in the input file."""
        return shown.size(row.size_bytes)

    @admin.display(description="Tokens (est.)")
    def tokens(self, row: Request) -> str:
        """Estimated tokens of its input, margin included."""
        counted = shown.number(row.token_estimate)
        return counted if row.is_token_exact else f"{counted}, guessed"

    @admin.display(description="Tokens")
    def its_tokens(self, row: Request) -> SafeString:
        """Tokens in and out of its last answer; before there is one, the estimate."""
        last = max(row.answers.all(), key=lambda answer: answer.attempt, default=None)
        if last is None or last.input_tokens is None:
            return shown.two_lines(f"≈ {row.token_estimate:,} in", "estimated")
        out = f"{shown.number(last.output_tokens)} out"
        return shown.two_lines(f"{last.input_tokens:,} in", out)

    @admin.display(description="Cost")
    def cost(self, row: Request) -> str:
        """What its answers cost, in US$."""
        return shown.money(row.cost_nano)

    @admin.display(description="Error")
    def error(self, row: Request) -> SafeString | str:
        """The provider's words about it."""
        return shown.long_text(row.error_message)


def _delivery_of(row: Request) -> SafeString | str:
    if row.delivered_at and row.due_at is None:
        return "delivered"
    if row.dead_at:
        return "discarded" if row.discarded_at else f"given up after {row.tries}"
    if row.due_at is None:
        return "not due yet"
    return format_html("try {}, {}", row.tries + 1, shown.age(row.due_at))
