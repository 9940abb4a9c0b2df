"""Destinations: where results go; made, named, paused and resumed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter

from batching.admin import searching, shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin
from batching.admin.secrets import shown_once
from batching.models import Destination
from batching.models.projects import new_signing_secret, place_of
from batching.steering import Refused
from batching.templatetags.badges import BAD, GOOD, WARNING, badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor

OPERATE = "batching.operate_destination"


def pause(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Hold what is due for this place until someone resumes it; raises Refused when it is held already."""
    if destination.paused_at is not None:
        raise Refused("invalid_state", "already paused")
    destination.paused_at = now
    destination.stop_reason = f"{reason} [by {by.name}]"[:300]
    destination.save(update_fields=["paused_at", "stop_reason"])


def resume(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Send what was held, oldest first; raises Refused when nothing holds it."""
    if destination.paused_at is None and destination.disabled_at is None:
        raise Refused("invalid_state", "not paused")
    destination.paused_at = destination.disabled_at = None
    destination.stop_reason = ""
    destination.save(update_fields=["paused_at", "disabled_at", "stop_reason"])


MOVES = (
    Move(
        name="pause",
        label="Pause",
        effect="Results that are due here are held, not lost, until the destination is resumed.",
        permission=OPERATE,
        act=pause,
        icon="pause",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="Results that were held are sent, oldest first.",
        permission=OPERATE,
        act=resume,
        icon="play_arrow",
    ),
)


class DestinationForm(ModelForm[Destination]):
    """A place: a URL, a queue, or an exchange with a routing key."""

    class Meta:
        model = Destination
        fields = ("project", "name", "type", "url", "queue", "exchange", "routing_key")

    def clean(self) -> dict[str, Any]:
        """Ask for the parts that the type needs, and for a place that the project does not have yet."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        parts = ("url", "queue", "exchange", "routing_key")
        url, queue, exchange, routing_key = (data.get(part, "") for part in parts)
        if data.get("type") == Destination.Type.WEBHOOK:
            if not url.startswith(("http://", "https://")):
                self.add_error("url", "A webhook needs a URL that starts with https:// or http://.")
            if queue or exchange or routing_key:
                self.add_error("type", "A webhook has no queue, exchange or routing key.")
        elif data.get("type") == Destination.Type.RABBITMQ and bool(queue) == bool(exchange):
            self.add_error("queue", "Name either a queue, or an exchange with a routing key.")
        project = data.get("project") or self.instance.project_id
        place = place_of(data.get("type", ""), url, queue, exchange, routing_key)
        twins = Destination.objects.filter(project=project, fingerprint=place)
        if project and twins.exclude(pk=self.instance.pk).exists():
            self.add_error(None, "This project has a destination for the same place already.")
        return data


@admin.register(Destination)
class DestinationAdmin(MovesAdmin[Destination], OurAdmin[Destination]):
    """Made on first use or by an administrator; paused and resumed by operators."""

    form = DestinationForm
    moves = MOVES
    list_display = ("label", "type", "project", "badge", "why_stopped", "waiting", "age")
    list_display_links = ("label",)
    list_select_related = ("project",)
    list_filter = (("type", ChoicesDropdownFilter), ("project", RelatedDropdownFilter))
    search_fields = ("name",)
    search_help_text = "Name, URL or queue as it stands, or key (dst_…)"
    ordering = ("-pk",)
    add_fieldsets = (
        (
            None,
            {"fields": ("project", "name", "type", "url", "queue", ("exchange", "routing_key"))},
        ),
    )
    fieldsets = (
        (None, {"fields": ("name", "type", "url", "queue", ("exchange", "routing_key"))}),
        ("About this destination", {"fields": (
            "key", "project", "badge", "why_stopped", "created_at", "secret_hint",
        )}),
    )  # fmt: skip
    always_readonly = ("key", "badge", "why_stopped", "created_at", "secret_hint")

    def get_fieldsets(self, request: HttpRequest, obj: Destination | None = None) -> Any:
        """Show the address without a URL's query to those who may not change it: it may hold secrets."""
        if obj is None or self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        return ((None, {"fields": ("name", "type", "address")}), self.fieldsets[1])

    def get_readonly_fields(
        self, request: HttpRequest, obj: Destination | None = None
    ) -> tuple[str, ...]:
        """Keep a destination in its project."""
        return (*self.always_readonly, "project") if obj else self.always_readonly

    def has_delete_permission(self, request: HttpRequest, obj: Destination | None = None) -> bool:
        """Nobody: requests point to it; it is paused instead."""
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
        if not change and obj.type == Destination.Type.WEBHOOK:
            obj.secret = new_signing_secret()
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
            advice="The receiver checks the header webhook-signature with it (Standard Webhooks).",
        )

    @admin.display(description="Destination")
    def label(self, destination: Destination) -> str:
        """Name or address, without a URL's query."""
        return (destination.name or destination.address)[:100]

    @admin.display(description="Standing")
    def badge(self, destination: Destination) -> SafeString:
        """Whether results are sent."""
        if destination.disabled_at:
            return badge("disabled", tone=BAD, icon="block")
        if destination.paused_at:
            return badge("paused", tone=WARNING, icon="pause_circle")
        return badge("open", tone=GOOD, icon="check_circle")

    @admin.display(description="Why stopped")
    def why_stopped(self, destination: Destination) -> str:
        """The reason that was given."""
        return destination.stop_reason or shown.NOTHING

    @admin.display(description="Attempts")
    def waiting(self, destination: Destination) -> SafeString:
        """Link to what was tried here."""
        url = shown.list_of("delivery.attempt", destination=destination.key)
        return shown.link(url, "show attempts")

    @admin.display(description="Age")
    def age(self, destination: Destination) -> SafeString | str:
        """Time since it was made."""
        return shown.age(destination.created_at)

    @admin.display(description="Signing secret")
    def secret_hint(self, destination: Destination) -> str:
        """The last four characters: all that is ever shown again."""
        return f"…{destination.secret[-4:]}" if destination.secret else "none"
