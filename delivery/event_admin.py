"""Events in the admin: who is told of what, and how telling them went; an event can be sent again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from batching.admin import searching, shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import MachineRows, ModelForm, OurAdmin
from batching.templatetags.badges import BAD, GOOD, WARNING, badge
from delivery import events
from delivery.event_models import EventDelivery, EventSubscription, EventType

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

_ATTEMPTS_SHOWN = 50


class SubscriptionForm(ModelForm[EventSubscription]):
    """A destination and what it is told of."""

    types = forms.MultipleChoiceField(
        choices=EventType.choices, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = EventSubscription
        fields = ("destination", "types")

    def clean_types(self) -> list[str]:
        """Keep them in one order."""
        return sorted(self.cleaned_data["types"])


@admin.register(EventSubscription)
class EventSubscriptionAdmin(OurAdmin[EventSubscription]):
    """Made here or by the API, one for each destination."""

    form = SubscriptionForm
    list_display = ("destination", "project", "told", "created_at")
    list_select_related = ("destination__project",)
    autocomplete_fields = ("destination",)
    ordering = ("-pk",)
    fields = ("destination", "types")

    @admin.display(description="Project")
    def project(self, row: EventSubscription) -> str:
        """Whose events these are."""
        return str(row.destination.project)

    @admin.display(description="Told of")
    def told(self, row: EventSubscription) -> str:
        """Types of events."""
        return ", ".join(row.types)


MOVES = (
    Move(
        name="replay",
        label="Send again",
        effect="The event is sent once more, with the same webhook-id and x-replay: 1.",
        permission="delivery.operate_eventdelivery",
        act=events.replay,
        icon="replay",
    ),
)
_TONES = {
    "delivered": (GOOD, "check_circle"),
    "dead": (BAD, "error"),
    "waiting": (WARNING, "schedule"),
}


@admin.register(EventDelivery)
class EventDeliveryAdmin(MovesAdmin[EventDelivery], MachineRows[EventDelivery]):
    """Written by the sweep that makes events, and by their sender."""

    moves = MOVES
    list_display = ("age", "kind", "about", "destination", "badge", "tries", "due_at")
    list_display_links = ("age",)
    list_select_related = ("event", "destination")
    list_filter = (
        ("event__type", ChoicesDropdownFilter),
        ("event__project", RelatedDropdownFilter),
    )
    search_fields = ("event__key",)
    search_help_text = "Key of an event (evt_…), a batch (bat_…) or a submission (sub_…)"
    fieldsets = (
        ("Event", {"fields": (("event_key", "kind"), "about", "payload")}),
        ("Delivery", {"fields": (
            ("destination", "badge"), ("tries", "replays"), ("due_at", "delivered_at", "dead_at"),
            "attempts",
        )}),
    )  # fmt: skip
    readonly_fields = ("event_key", "kind", "about", "payload", "badge", "attempts")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EventDelivery], search_term: str
    ) -> tuple[QuerySet[EventDelivery], bool]:
        """Find by the key of the event or of what it is about, whole."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = searching.key_is(term, "evt", "event__key")
        return (queryset.filter(named) if named else queryset.filter(event__subject=term)), False

    @admin.display(description="Age")
    def age(self, row: EventDelivery) -> SafeString | str:
        """Time since the event was made."""
        return shown.age(row.event.created_at)

    @admin.display(description="webhook-id")
    def event_key(self, row: EventDelivery) -> str:
        """The same over all tries and replays."""
        return row.event.key

    @admin.display(description="Type")
    def kind(self, row: EventDelivery) -> str:
        """What happened."""
        return row.event.type

    @admin.display(description="About")
    def about(self, row: EventDelivery) -> str:
        """Key of the batch or the submission."""
        return row.event.subject

    @admin.display(description="Standing")
    def badge(self, row: EventDelivery) -> SafeString:
        """Whether it was told."""
        tone, icon = _TONES[row.standing]
        return badge(row.standing, tone=tone, icon=icon)

    @admin.display(description="What is sent")
    def payload(self, row: EventDelivery) -> SafeString | str:
        """Ids, counts and links: no prompt and no answer."""
        return shown.pretty(json.loads(bytes(row.event.payload)))

    @admin.display(description="Attempts")
    def attempts(self, row: EventDelivery) -> SafeString | str:
        """Newest first."""
        lines = [
            f"{a.ended_at:%Y-%m-%d %H:%M:%S} UTC  try {a.number}  {a.outcome}"
            f"  {a.status or ''}  {a.duration_s * 1000:,.0f} ms  {a.address}  {a.detail}"
            for a in row.attempts.order_by("-pk")[:_ATTEMPTS_SHOWN]
        ]
        return shown.long_text("\n".join(lines))
