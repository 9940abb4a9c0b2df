"""Destinations: where results go; made, changed, stopped and tried here, by the core's own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from batching import audit
from batching.admin import replay_orders, searching, shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin
from batching.admin.secrets import shown_once
from batching.admin.standings import DestinationStandingFilter
from batching.models import Destination
from batching.steering import Refused
from batching.templatetags.badges import state_badge
from delivery import destinations, ping, standing

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
_KEPT = "***"
"""Stands for a stored header's value, which is never shown."""


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


class DestinationForm(ModelForm[Destination]):
    """A place, and what it asks for. Stored header values are never shown."""

    own_headers = forms.CharField(
        label="Headers",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="One a line, “Authorization: Bearer …”; sent with each webhook, encrypted here. A stored value "
        f"shows as {_KEPT}: leave it to keep it, take the line out to drop it.",
    )
    delays = forms.CharField(
        label="Retry schedule",
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Seconds before each try between commas, the first included: 0, 5, 300, 1800. Empty: the default.",
    )

    class Meta:
        model = Destination
        fields = (
            "project", "name", "type", "url", "queue", "exchange", "routing_key",
            "fail_fast_on_4xx", *destinations.RANGES,
        )  # fmt: skip
        help_texts: ClassVar = {
            "name": "Requests may say this name instead of the address.",
            "url": "Of a webhook: https://, no user or password. http:// and private networks only as the environment "
            "opens them.",
            "queue": "Of RabbitMQ: the queue, or else an exchange with a routing key.",
            "fail_fast_on_4xx": "A client error ends a delivery at once; else it is tried on.",
            "timeout_s": "Seconds for one try, all in all. Empty, here and below: the default.",
            "max_in_flight": "Tries under way at once.",
            "max_per_second": "Tries begun in a second. Empty: no fixed rate.",
            "max_inline_bytes": "A larger result goes as a thin message that says where to fetch it.",
        }
        labels: ClassVar = {
            "url": "URL",
            "fail_fast_on_4xx": "Fail fast on 4xx",
            "timeout_s": "Timeout (s)",
            "max_in_flight": "Most in flight",
            "max_per_second": "Most per second",
            "max_inline_bytes": "Most bytes inline",
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        if "own_headers" in self.fields:
            names = self.instance.own_headers
            self.initial["own_headers"] = "\n".join(f"{name}: {_KEPT}" for name in names)
            delays = self.instance.retry_delays_s or []
            self.initial["delays"] = ", ".join(f"{delay:g}" for delay in delays)

    def clean_own_headers(self) -> dict[str, str]:
        """Read lines; a value that is hidden is the stored one."""
        stored, headers = self.instance.own_headers, dict[str, str]()
        for line in filter(str.strip, self.cleaned_data["own_headers"].splitlines()):
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                raise forms.ValidationError("Write each header as “Name: value”.")
            if name in headers:
                raise forms.ValidationError(f"{name} is given twice.")
            headers[name] = stored.get(name, value) if value == _KEPT else value
        return headers

    def clean_delays(self) -> list[float] | None:
        """Read numbers between commas."""
        typed = self.cleaned_data["delays"].replace(",", " ").split()
        try:
            return [float(part) for part in typed] or None
        except ValueError:
            raise forms.ValidationError("Write numbers of seconds between commas.") from None

    def _post_clean(self) -> None:
        """Ask the core what is wrong with the destination, once it has all its values."""
        super()._post_clean()  # type: ignore[misc]  # Django's own hook
        if self.errors or "own_headers" not in self.fields:
            return
        destinations.write_headers(self.instance, self.cleaned_data["own_headers"])
        self.instance.retry_delays_s = self.cleaned_data["delays"]
        for problem in destinations.problems_with(self.instance):
            field = {"headers": "own_headers", "retry_delays_s": "delays"}.get(
                problem.field, problem.field
            )
            self.add_error(field if field in self.fields else None, f"It {problem.detail}.")


_PLACE = ("name", "type", "url", "queue", ("exchange", "routing_key"))
_TERMS = ("own_headers", "delays", "fail_fast_on_4xx", *destinations.RANGES)


@admin.register(Destination)
class DestinationAdmin(MovesAdmin[Destination], OurAdmin[Destination]):
    """Made on first use or by an administrator; paused, tried and enabled by operators."""

    form = DestinationForm
    moves = MOVES
    list_display = ("label", "type", "project", "badge", "why_stopped", "waiting", "age")
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
            figures = {
                "row": row,
                "standing": standing.of(row, now=timezone.now()),
                "attempts": self.waiting(row),
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
    def label(self, destination: Destination) -> str:
        """Name or address, without a URL's query."""
        return (destination.name or destination.address)[:100]

    @admin.display(description="Standing")
    def badge(self, destination: Destination) -> SafeString:
        """Whether results are sent."""
        return state_badge(destination.state)

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
