"""API keys: issued (the secret is shown once), listed, revoked. Never deleted: the log names them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextareaWidget

from batching.admin import shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin
from batching.admin.secrets import shown_once
from batching.models import ApiKey
from batching.models.projects import Scope, default_scopes
from batching.permits import problem_with
from batching.steering import Refused
from batching.templatetags.badges import BAD, GOOD, QUIET, badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor


LIMITS = (
    "allowed_models", "allowed_endpoints", "allowed_destinations", "calls_per_minute",
    "lines_per_minute",
)  # fmt: skip
OVERLAP = timedelta(hours=24)
"""How long the old secret holds after a rotation here; the command takes any time."""


def revoke(key: ApiKey, *, by: Actor, reason: str, now: datetime) -> None:
    """Close a key for good; raises Refused when it was closed already. ``by`` and ``reason`` are logged."""
    if not key.revoke(now):
        raise Refused("invalid_state", "already revoked")


SHOWN_ONCE = "shown_once"
"""Attribute of a key that was rotated just now; never a column."""


def rotate(key: ApiKey, *, by: Actor, reason: str, now: datetime) -> None:
    """Give a key a new secret, and leave that on it to be shown; raises Refused when the key is closed."""
    if not key.is_valid:
        raise Refused("invalid_state", "closed already; issue a new key")
    setattr(key, SHOWN_ONCE, key.rotate(overlap=OVERLAP, now=now))


MOVES = (
    Move(
        name="rotate",
        label="Rotate",
        effect="The key gets a new secret, shown once. The one in use holds for 24 hours more.",
        permission="batching.change_apikey",
        act=rotate,
        icon="autorenew",
        is_for_one=True,
    ),
    Move(
        name="revoke",
        label="Revoke",
        effect="Programs that use this key are refused from now on. This can not be undone; issue a new key "
        "instead.",
        permission="batching.change_apikey",
        act=revoke,
        icon="key_off",
        is_dangerous=True,
    ),
)


class PatternsField(forms.CharField):
    """A list of patterns, one a line."""

    widget = UnfoldAdminTextareaWidget

    def __init__(self, *, help_text: str) -> None:
        super().__init__(required=False, help_text=help_text)

    def prepare_value(self, value: Any) -> str:
        """Show a stored list as lines."""
        return "\n".join(value) if isinstance(value, list) else value or ""

    def to_python(self, value: Any) -> Any:
        """Read lines."""
        return [line.strip() for line in (value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists."""
        return bool((initial or []) != self.to_python(data))


class ApiKeyForm(ModelForm[ApiKey]):
    """A key's name, its scopes as checkboxes, what it may ask for, and its end."""

    allowed_models = PatternsField(help_text="One pattern a line (gpt-4o*); empty: every model.")
    allowed_endpoints = PatternsField(
        help_text="One a line (/v1/responses); empty: every endpoint."
    )
    allowed_destinations = PatternsField(
        help_text="One a line: https://*.example.com (no path), queue:…, exchange:…, name:…; empty: anywhere."
    )

    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=default_scopes,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What programs may do with this key.",
    )

    class Meta:
        model = ApiKey
        fields = ("project", "name", "scopes", "expires_at", *LIMITS)

    def clean(self) -> dict[str, Any]:
        """Refuse patterns that could fit nothing."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        lists = [data.get(name) or [] for name in LIMITS[:3]]
        if problem := problem_with(*lists):
            self.add_error(None, problem)
        return data


@admin.register(ApiKey)
class ApiKeyAdmin(MovesAdmin[ApiKey], OurAdmin[ApiKey]):
    """Issued and revoked by administrators."""

    form = ApiKeyForm
    moves = MOVES
    list_display = ("name", "start", "project", "badge", "allowed", "last_used", "expires_at")
    list_select_related = ("project",)
    list_filter = (("project", RelatedDropdownFilter),)
    search_fields = ("name", "prefix")
    search_help_text = "Name, or the key's beginning"
    ordering = ("-pk",)
    add_fieldsets = (
        (None, {"fields": ("project", "name", "scopes", "expires_at")}),
        ("Limits", {"fields": LIMITS}),
    )
    fieldsets = (
        (None, {"fields": ("name", "scopes", "expires_at")}),
        ("Limits", {"fields": LIMITS}),
        ("About this key", {"fields": (
            "project", "start", "created_at", "last_used_at", "previous_until", "revoked_at",
        )}),
    )  # fmt: skip
    always_readonly = ("start", "created_at", "last_used_at", "previous_until", "revoked_at")

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiKey | None = None
    ) -> tuple[str, ...]:
        """Keep a key in the project that it was issued for."""
        return (*self.always_readonly, "project") if obj else self.always_readonly

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Nobody: a key is revoked."""
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        """Issue a new key; keep its secret for the answer to this very request, and nowhere else."""
        if change:
            super().save_model(request, obj, form, change)
            return
        issued, secret = ApiKey.issue(
            obj.project, obj.name, scopes=obj.scopes, expires_at=obj.expires_at
        )
        obj.pk, obj.prefix, obj.secret_sha256 = issued.pk, issued.prefix, issued.secret_sha256
        obj._state.adding = False
        obj.save(update_fields=LIMITS)
        request.new_secret = secret  # type: ignore[attr-defined]  # handed to response_add below

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, this once."""
        return shown_once(
            request,
            self,
            obj,
            secret=request.new_secret,  # type: ignore[attr-defined]  # set by save_model above
            advice="Programs send it as “Authorization: Bearer …”.",
        )

    def page_after(self, request: HttpRequest, move: Move, row: ApiKey) -> HttpResponse | None:
        """Show a rotated key's new secret, this once."""
        secret = getattr(row, SHOWN_ONCE, None)
        if secret is None:
            return None
        advice = f"The secret before it holds until {row.previous_until:%Y-%m-%d %H:%M} UTC."
        return shown_once(request, self, row, secret=secret, advice=advice)

    @admin.display(description="Begins with")
    def start(self, key: ApiKey) -> str:
        """The public beginning."""
        return f"{key.prefix}…" if key.prefix else shown.NOTHING

    @admin.display(description="Standing")
    def badge(self, key: ApiKey) -> SafeString:
        """Whether it opens the door."""
        if key.revoked_at:
            return badge("revoked", tone=BAD, icon="key_off")
        if not key.is_valid:
            return badge("expired", tone=QUIET, icon="timer_off")
        return badge("valid", tone=GOOD, icon="key")

    @admin.display(description="Scopes")
    def allowed(self, key: ApiKey) -> str:
        """Its scopes."""
        return ", ".join(key.scopes)

    @admin.display(description="Last used")
    def last_used(self, key: ApiKey) -> SafeString | str:
        """How long ago, to the minute."""
        return shown.age(key.last_used_at) if key.last_used_at else "never"
