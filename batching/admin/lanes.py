"""Lanes: how full each is, who holds its room, who waits in which order, and what a person may do to its flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count, Q
from django.shortcuts import render
from django.urls import path
from django.utils import timezone
from unfold.contrib.filters.admin import RelatedDropdownFilter

from batching import capacity, order, queueing, turnaround
from batching.admin import shown
from batching.admin.lane_line import PART, line_context, move_in_line
from batching.admin.lane_room import refusals_of, room_of
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import OurAdmin, OurChangeList
from batching.admin.standings import LaneStandingFilter
from batching.figures import Use, figures
from batching.lifecycle import BATCH_ENDS
from batching.models import Lane
from batching.templatetags.badges import state_badge

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString

OPERATE = "batching.operate_batch"

MOVES = (
    Move(
        name="pause",
        label="Pause",
        effect="None of its batches is started. What the provider holds is finished and delivered.",
        permission=OPERATE,
        act=queueing.pause_lane,
        states=frozenset({"open"}),
        icon="pause_circle",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="Its batches are started again, as far as there is room, from the places that they kept.",
        permission=OPERATE,
        act=queueing.resume_lane,
        states=frozenset({"paused"}),
        icon="play_circle",
    ),
    Move(
        name="freeze",
        label="Freeze learning",
        effect="The limit and the ratio learned for its account and model stay as they are, whatever the "
        "provider refuses or takes.",
        permission=OPERATE,
        act=capacity.freeze,
        icon="ac_unit",
    ),
    Move(
        name="unfreeze",
        label="Learn again",
        effect="The limit and the ratio of its account and model follow again what the provider takes.",
        permission=OPERATE,
        act=capacity.unfreeze,
        icon="model_training",
    ),
)


class LaneList(OurChangeList):
    """A page of lanes with their figures: a few queries for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        """Put its figures on each lane of the page."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = figures(self.result_list, timezone.now())
        for lane in self.result_list:
            lane.figures = found[lane.pk]


@admin.register(Lane)
class LaneAdmin(MovesAdmin[Lane], OurAdmin[Lane]):
    """Made by intake; its limits are an administrator's to set, its flow an operator's."""

    moves = MOVES
    list_display = (
        "name", "account", "badge", "tokens", "at_provider", "waiting", "oldest", "open_batches",
    )  # fmt: skip
    list_display_links = ("name",)
    list_select_related = ("account",)
    list_filter = (("account", RelatedDropdownFilter), LaneStandingFilter)
    search_fields = ("model",)
    search_help_text = "Model, as the provider names it"
    ordering = ("-pk",)
    change_form_outer_before_template = "batcher/admin/_lane_head.html"
    fields = (
        ("account", "created_at"), ("model", "endpoint"), ("token_limit", "max_batches_in_flight"),
        ("paused_at", "pause_reason"), "takes", "batches",
    )  # fmt: skip
    readonly_fields = (
        "account", "model", "endpoint", "created_at", "paused_at", "pause_reason", "takes",
        "batches",
    )  # fmt: skip

    def get_urls(self) -> list[URLPattern]:
        """Add the moves of its line."""
        move = self.admin_site.admin_view(move_in_line)
        return [path("<int:lane_id>/line/", move, name="batching_lane_line"), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[LaneList]:
        """Use the list with figures."""
        return LaneList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lane]:
        """Count the batches that are under way, by the index on lane and state."""
        ends = sorted(str(state) for state in BATCH_ENDS)
        open_ones = Count("batches", filter=~Q(batches__state__in=ends))
        return super().get_queryset(request).annotate(open_count=open_ones)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Lane], search_term: str
    ) -> tuple[QuerySet[Lane], bool]:
        """Find by the beginning of the model's name."""
        term = search_term.strip()
        return (queryset.filter(model__startswith=term) if term else queryset), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a lane with its figures, who holds its room and who waits."""
        lane = self.row_at(request, object_id)
        if lane is not None:
            if request.headers.get("HX-Target") == PART and self.has_view_permission(request):
                waiting = order.line_of(lane).count()
                context = line_context(request, lane, waiting)
                return render(request, f"batcher/admin/_{PART}.html", context)
            extra_context = {**(extra_context or {}), **_surroundings(request, lane)}
        return super().change_view(request, object_id, form_url, extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: the first request makes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Lane | None = None) -> bool:
        """Nobody: batches and requests point to it."""
        return False

    @admin.display(description="Lane")
    def name(self, lane: Lane) -> SafeString:
        """Model over endpoint."""
        return shown.two_lines(lane.model, lane.endpoint)

    @admin.display(description="Flow")
    def badge(self, lane: Lane) -> SafeString:
        """Whether its batches are started, and why not; a paused account stops all its lanes."""
        held = lane if lane.state != "open" else lane.account
        state = state_badge(held.state)
        return (
            shown.two_lines(state, shown.cut_short(held.pause_reason, 60))
            if held.pause_reason
            else state
        )

    @admin.display(description="Tokens at the provider")
    def tokens(self, lane: Lane) -> SafeString:
        """Used of the limit, and who says so."""
        found = lane.figures.tokens  # type: ignore[attr-defined]  # put there by LaneList
        return shown.full_to(
            found.used, found.limit, f"{found.source}{', frozen' if found.is_frozen else ''}"
        )

    @admin.display(description="Batches there")
    def at_provider(self, lane: Lane) -> str:
        """Of the lane, of how many it may have."""
        return _of(lane.figures.lane_batches)  # type: ignore[attr-defined]  # put there by LaneList

    @admin.display(description="In line")
    def waiting(self, lane: Lane) -> SafeString | str:
        """Sealed and not yet at the provider, and what that makes in tokens."""
        found = lane.figures  # type: ignore[attr-defined]  # put there by LaneList
        if not found.waiting:
            return shown.number(0)
        return shown.two_lines(shown.number(found.waiting), f"{found.waiting_tokens:,} tokens")

    @admin.display(description="Oldest waits for")
    def oldest(self, lane: Lane) -> SafeString | str:
        """Since when the longest in line waits."""
        return shown.age(lane.figures.oldest_waiting_at)  # type: ignore[attr-defined]  # put there by LaneList

    @admin.display(description="Under way")
    def open_batches(self, lane: Lane) -> SafeString:
        """Those that are not at an end, and the way to all of them."""
        count: int = lane.open_count  # type: ignore[attr-defined]  # annotated above
        return shown.link(shown.list_of("batching.batch", lane=lane.pk), shown.number(count))

    @admin.display(description="A batch takes (est.)")
    def takes(self, lane: Lane) -> str:
        """How long a batch takes at the provider, as learned."""
        known = turnaround.expected(lane)
        if known.is_guess:
            return "not known yet: too few have ended"
        half, most = shown.duration(known.p50), shown.duration(known.p90)
        return f"{half} (half of them), {most} (nine of ten); learned from {known.batches:,}"

    @admin.display(description="Batches")
    def batches(self, lane: Lane) -> SafeString:
        """Link to them."""
        return shown.link(shown.list_of("batching.batch", lane=lane.pk), "show batches")


def _of(use: Use) -> str:
    """Return ``3 of 5``; without a limit ``3``."""
    return f"{use.used:,} of {use.limit:,}" if use.limit else f"{use.used:,}"


def _surroundings(request: HttpRequest, lane: Lane) -> dict[str, Any]:
    """Return what a lane's page shows above its form."""
    now = timezone.now()
    found = figures([lane], now)[lane.pk]
    return {
        **line_context(request, lane, found.waiting),
        "figures": found,
        "uses": (
            ("Batches of the lane", _of(found.lane_batches)),
            ("Batches of the account", _of(found.batches)),
            ("Requests of the account", _of(found.requests)),
            ("Created in the last hour", _of(found.creates)),
        ),
        "room": room_of(lane, found.tokens, now),
        "refusals": refusals_of(lane),
    }
