"""Destinations: where results go; made, changed, stopped and tried here, by the core's own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching import audit
from batching.admin import replay_orders, searching, shown
from batching.admin.dead_letters import group_url
from batching.admin.destination_course import (
    fares_of,
    milliseconds,
    pieces_of,
    share,
    with_oldest_due,
)
from batching.admin.destination_form import DestinationForm
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import OurAdmin, OurChangeList
from batching.admin.secrets import shown_once
from batching.admin.standings import DestinationStandingFilter
from batching.models import Destination
from batching.steering import Refused
from batching.templatetags.badges import destination_badge
from delivery import destinations, health, ping, standing, tried

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor


OPERATE = "batching.operate_destination"
_RECEIVER_CHECKS = "The receiver checks the header webhook-signature with it (Standard Webhooks)."


CHANGE = "batching.change_destination"
_PRESENT = frozenset({"open", "paused", "disabled"})
SHOWN_ONCE = "shown_once"
"""Attribute of a destination whose secret was rotated just now; never a column."""


def rotate(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Give a webhook a new secret, and leave that on it to be shown."""
    setattr(destination, SHOWN_ONCE, destinations.rotate_secret(destination, now=now))


def send_ping(destination: Destination, *, by: Actor, reason: str, now: datetime) -> str:
    """Send a test message and say how that ended; raises Refused with it when it did not arrive."""
    outcome = ping.ping(destination, now=now)
    if outcome.is_delivered:
        return ping.sentence(outcome)
    audit.record("destination.ping", by=by, row=destination, reason=str(outcome.code))
    raise Refused("ping_failed", f"it did not arrive: {ping.sentence(outcome)}")


MOVES = (
    Move(
        name="ping",
        label="Ping",
        effect="A signed test message of type “ping” is sent now, the way results go, whether the destination is "
        "paused or not. It counts as no attempt.",
        permission=OPERATE,
        act=send_ping,
        states=_PRESENT,
        icon="network_ping",
        asks_reason=False,
        is_for_one=True,
        calls_outside=True,
    ),
    Move(
        name="pause",
        label="Pause",
        effect="Results that are due here are held, not lost, until the destination is resumed.",
        permission=OPERATE,
        act=destinations.pause,
        states=frozenset({"open", "disabled"}),
        icon="pause",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="Everything that was held goes out, longest due first.",
        permission=OPERATE,
        act=destinations.resume,
        states=frozenset({"paused"}),
        icon="play_arrow",
    ),
    Move(
        name="enable",
        label="Enable",
        effect="It was disabled because its receiver asked for that (410) or took nothing for days. What was held "
        "goes out, longest due first.",
        permission=OPERATE,
        act=destinations.enable,
        states=frozenset({"disabled"}),
        icon="restart_alt",
    ),
    Move(
        name="redeliver",
        label="Redeliver…",
        effect="Results of some time are sent here again, in the background.",
        permission=replay_orders.ORDER,
        act=replay_orders.order_at,
        page=replay_orders.order_at,
        states=_PRESENT,
        icon="outbox",
        is_for_one=True,
    ),
    Move(
        name="rotate",
        label="Rotate secret",
        effect="The webhook gets a new signing secret, shown once. For 24 hours the one in use signs as well.",
        permission=CHANGE,
        act=rotate,
        states=_PRESENT,
        icon="autorenew",
        is_for_one=True,
    ),
    Move(
        name="delete",
        label="Delete",
        effect="Its secrets and headers are gone, its name and place are free again. Its row stays for the history. "
        "Refused while results are to be delivered here.",
        permission=CHANGE,
        act=destinations.delete,
        states=_PRESENT,
        icon="delete",
        is_dangerous=True,
    ),
)


_PLACE = ("name", "type", "url", "queue", ("exchange", "routing_key"))
_TERMS = ("own_headers", "delays", "fail_fast_on_4xx", *destinations.RANGES)


class DestinationList(OurChangeList):
    """A page of destinations with how they fare: a few queries for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        """Put on each destination of the page how it fares."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = fares_of(self.result_list, timezone.now())
        for row in self.result_list:
            row.fares = found[row.pk]


@admin.register(Destination)
class DestinationAdmin(MovesAdmin[Destination], OurAdmin[Destination]):
    """Made on first use or by an administrator; paused, tried and enabled by operators."""

    form = DestinationForm
    moves = MOVES
    list_display = (
        "label", "badge", "success", "p95", "in_flight", "oldest_due", "last_failure", "project", "secret_age", "waiting",
    )  # fmt: skip
    list_display_links = ("label",)
    list_select_related = ("project",)
    list_filter = (
        ("type", ChoicesDropdownFilter),
        ("project", RelatedDropdownFilter),
        DestinationStandingFilter,
    )
    search_fields = ("name",)
    search_help_text = "Name, URL or queue as it stands, or key (dst_…)"
    ordering = ("-pk",)
    change_form_outer_before_template = "batcher/admin/_destination_head.html"
    add_fieldsets = (
        (None, {"fields": ("project", *_PLACE)}),
        ("What it asks for", {"fields": _TERMS}),
    )
    fieldsets = (
        (None, {"fields": _PLACE}),
        ("What it asks for", {"fields": _TERMS}),
        ("About this destination", {"fields": (
            ("key", "project"), ("badge", "why_stopped"), ("secret_hint", "created_at"),
        )}),
    )  # fmt: skip
    always_readonly = ("key", "badge", "why_stopped", "created_at", "secret_hint")

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[DestinationList]:
        """Use the list with figures."""
        return DestinationList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Destination]:
        """Put on each since when its oldest result is due."""
        return with_oldest_due(super().get_queryset(request))

    def get_fieldsets(self, request: HttpRequest, obj: Destination | None = None) -> Any:
        """Show the address without a URL's query to those who may not change it: it may hold secrets."""
        if obj is None:
            return self.add_fieldsets
        if self.has_change_permission(request, obj):
            return self.fieldsets
        return ((None, {"fields": ("name", "type", "address")}), self.fieldsets[2])

    def get_readonly_fields(
        self, request: HttpRequest, obj: Destination | None = None
    ) -> tuple[str, ...]:
        """Keep a destination in its project, and what it is."""
        return (*self.always_readonly, "project", "type") if obj else self.always_readonly

    def has_change_permission(self, request: HttpRequest, obj: Destination | None = None) -> bool:
        """Of one that is deleted, nobody: it is history."""
        may = super().has_change_permission(request, obj)
        return may and (obj is None or obj.deleted_at is None)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a destination with how it stands."""
        if (row := self.row_at(request, object_id)) is not None:
            stands = standing.of(row, now=timezone.now())
            figures = {
                "row": row,
                "standing": stands,
                "causes": [(cause, group_url(row, cause)) for cause in stands.causes],
                "secret_at": row.secret_at or row.created_at,
                "attempts": self.waiting(row),
                **_course(row),
                "given_up_url": shown.list_of("batching.request", given_up_at=row.key),
            }
            extra_context = {**(extra_context or {}), **figures}
        return super().change_view(request, object_id, form_url, extra_context)

    def page_after(self, request: HttpRequest, move: Move, row: Destination) -> HttpResponse | None:
        """Show a rotated secret, this once."""
        secret = getattr(row, SHOWN_ONCE, None)
        if secret is None:
            return None
        advice = _RECEIVER_CHECKS
        if row.previous_secret_until:
            advice += (
                f" The one before signs too until {row.previous_secret_until:%Y-%m-%d %H:%M} UTC."
            )
        return shown_once(request, self, row, secret=secret, advice=advice)

    def has_delete_permission(self, request: HttpRequest, obj: Destination | None = None) -> bool:
        """Nobody: requests point to it; the move of that name keeps its row."""
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Destination], search_term: str
    ) -> tuple[QuerySet[Destination], bool]:
        """Find by the exact name or address, or by key."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if (named := searching.key_is(term, "dst")) is not None:
            return queryset.filter(named), False
        by_address = queryset.filter(url=term) | queryset.filter(queue=term)
        return by_address | queryset.filter(name=term), False

    def save_model(self, request: HttpRequest, obj: Destination, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        """Give a new webhook the secret that signs what we send."""
        if not change:
            destinations.give_secret(obj)
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: Destination, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the signing secret, this once."""
        if not obj.secret:
            return super().response_add(request, obj, post_url_continue)
        return shown_once(
            request,
            self,
            obj,
            secret=obj.secret,
            advice=_RECEIVER_CHECKS,
        )

    @admin.display(description="Destination")
    def label(self, destination: Destination) -> SafeString:
        """Name or address without a URL's query, and how results travel."""
        name = (destination.name or destination.address)[:60]
        return shown.two_lines(name, destination.get_type_display())

    @admin.display(description="Standing")
    def badge(self, destination: Destination) -> SafeString:
        """Whether results are sent, and when again if they are not."""
        fares = getattr(destination, "fares", None)  # on the list; a page asks for its own
        found = fares.health if fares else health.of(destination, now=timezone.now())
        said = destination_badge(destination.state, is_broken=found.is_open)
        if not found.is_open or destination.state != "open":
            return said
        return shown.two_lines(said, format_html("next try {}", shown.age(found.open_until)))

    @admin.display(description="Arrived")
    def success(self, destination: Destination) -> SafeString | str:
        """The part of the latest tries that arrived."""
        course = destination.fares.course  # type: ignore[attr-defined]  # put there by DestinationList
        if not course.tries:
            return shown.NOTHING
        return shown.two_lines(share(course), f"of {course.tries:,} tries")

    @admin.display(description="p95")
    def p95(self, destination: Destination) -> str:
        """Nineteen of twenty that arrived took no longer."""
        return milliseconds(destination.fares.course.p95_s).replace(" ", "\N{NO-BREAK SPACE}")  # type: ignore[attr-defined]  # as above

    @admin.display(description="In flight")
    def in_flight(self, destination: Destination) -> str:
        """Tries that are given out, of how many may be under way."""
        found = destination.fares.health  # type: ignore[attr-defined]  # as above
        return f"{found.in_flight:,} of {found.in_flight_limit:,}"

    @admin.display(description="Oldest due")
    def oldest_due(self, destination: Destination) -> SafeString | str:
        """Since when the oldest result is due, or when it is."""
        return shown.age(destination.oldest_due_at)  # type: ignore[attr-defined]  # annotated above

    @admin.display(description="Last error")
    def last_failure(self, destination: Destination) -> SafeString | str:
        """What went wrong last, and when."""
        if destination.stop_reason:
            return shown.cut_short(destination.stop_reason, 60)
        found = destination.fares.health  # type: ignore[attr-defined]  # as above
        if not found.last_failure:
            return shown.NOTHING
        return shown.two_lines(
            shown.cut_short(found.last_failure, 40), shown.age(found.last_failure_at)
        )

    @admin.display(description="Secret's age")
    def secret_age(self, destination: Destination) -> SafeString | str:
        """Since when its secret signs."""
        since = destination.secret_at or destination.created_at
        return shown.age(since) if destination.type == Destination.Type.WEBHOOK else shown.NOTHING

    @admin.display(description="Why stopped")
    def why_stopped(self, destination: Destination) -> str:
        """The reason that was given."""
        return destination.stop_reason or shown.NOTHING

    @admin.display(description="Attempts")
    def waiting(self, destination: Destination) -> SafeString:
        """Link to what was tried here."""
        url = shown.list_of("delivery.attempt", destination=destination.key)
        return shown.link(url, "attempts")

    @admin.display(description="Signing secret")
    def secret_hint(self, destination: Destination) -> str:
        """The last four characters: all that is ever shown again."""
        return f"…{destination.secret[-4:]}" if destination.secret else "none"


def _course(row: Destination) -> dict[str, Any]:
    """Return the chart of a destination's page."""
    tries = tried.latest([row.pk], most=tried.MANY).get(row.pk, [])
    stretches = tried.stretches_of(tries)
    course = tried.course_of(tries)
    return {
        "course": course,
        "arrived": share(course),
        "p95": milliseconds(course.p95_s),
        "pieces": pieces_of(stretches),
        "stretches": [one for one in reversed(stretches) if one.total],
        "most_tries": tried.MANY,
        "first_try_at": tries[-1].ended_at if tries else None,
        "last_try_at": tries[0].ended_at if tries else None,
    }
