"""Lanes: how full each is, who holds its room, who waits in which order, and what a person may do to its flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count, Q
from django.utils import timezone
from unfold.contrib.filters.admin import RelatedDropdownFilter

from batching import capacity, order, queueing, turnaround
from batching.admin import shown
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
    from django.utils.safestring import SafeString

OPERATE = "batching.operate_batch"
LINE_SHOWN = 100

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
        "model", "endpoint", "account", "badge", "tokens", "at_provider", "waiting", "open_batches",
        "batches",
    )  # fmt: skip
    list_display_links = ("model",)
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
            extra_context = {**(extra_context or {}), **_surroundings(lane)}
        return super().change_view(request, object_id, form_url, extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: the first request makes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Lane | None = None) -> bool:
        """Nobody: batches and requests point to it."""
        return False

    @admin.display(description="Flow")
    def badge(self, lane: Lane) -> SafeString:
        """Whether its batches are started; a paused account stops all its lanes."""
        return state_badge(lane.state if lane.account.state == "open" else lane.account.state)

    @admin.display(description="Tokens at the provider")
    def tokens(self, lane: Lane) -> SafeString:
        """Used of the limit, and who says so."""
        found = lane.figures.tokens  # type: ignore[attr-defined]  # put there by LaneList
        said_by = f"{found.source}{', frozen' if found.is_frozen else ''}"
        return shown.two_lines(f"{found.used:,} of {found.limit:,}", said_by)

    @admin.display(description="Batches there")
    def at_provider(self, lane: Lane) -> str:
        """Of the lane, of how many it may have."""
        return _of(lane.figures.lane_batches)  # type: ignore[attr-defined]  # put there by LaneList

    @admin.display(description="In line")
    def waiting(self, lane: Lane) -> str:
        """Sealed and not yet at the provider."""
        return shown.number(lane.figures.waiting)  # type: ignore[attr-defined]  # put there by LaneList

    @admin.display(description="Under way")
    def open_batches(self, lane: Lane) -> str:
        """Those that are not at an end."""
        count: int = lane.open_count  # type: ignore[attr-defined]  # annotated above
        return shown.number(count)

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


def _surroundings(lane: Lane) -> dict[str, Any]:
    """Return what a lane's page shows above its form."""
    found = figures([lane], timezone.now())[lane.pk]
    line = list(order.line_of(lane)[:LINE_SHOWN])
    held = capacity.holders(lane).order_by("create_started_at", "pk")[:LINE_SHOWN]
    return {
        "lane": lane,
        "figures": found,
        "uses": (
            ("Batches of the lane", _of(found.lane_batches)),
            ("Batches of the account", _of(found.batches)),
            ("Requests of the account", _of(found.requests)),
            ("Created in the last hour", _of(found.creates)),
        ),
        "held": [(batch, shown.page_of(batch)) for batch in held],
        "line": [(place, batch, shown.page_of(batch)) for place, batch in enumerate(line, start=1)],
        "more": max(0, found.waiting - len(line)),
    }
