"""Accounts at providers. An account's key can be written and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.widgets import UnfoldAdminPasswordWidget

from batching import gateway, notices, queueing
from batching.admin import shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin
from batching.admin.standings import AccountStandingFilter
from batching.models import Account
from batching.providers.base import ProviderError
from batching.reach import InvalidDestinationError
from batching.steering import Refused
from batching.templatetags.badges import BAD, GOOD, QUIET, badge, state_badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor


def check_connection(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Ask the provider the cheapest question that proves the key works; raises Refused with its answer.

    Notes what came of it on the account. Call outside of a transaction.
    """
    problem = ""
    try:
        gateway.connect(account).check()
    except ProviderError as error:
        problem = str(error)
    account.last_error = problem[:500]
    account.last_error_at = now if problem else None
    account.save(update_fields=["last_error", "last_error_at"])
    if problem:
        raise Refused("provider_refused", f"the provider said: {problem[:300]}")


MOVES = (
    Move(
        name="check",
        label="Check connection",
        effect="The provider is asked one question that costs nothing, with the base URL and key as saved.",
        permission="batching.change_account",
        act=check_connection,
        calls_outside=True,
        icon="network_check",
        asks_reason=False,
    ),
    Move(
        name="pause",
        label="Pause",
        effect="No batch is started through it. Requests for it are taken and packed, and what the provider "
        "holds is finished and delivered.",
        permission="batching.operate_batch",
        act=queueing.pause_account,
        states=frozenset({"open"}),
        icon="pause_circle",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="Its batches are started again, as far as there is room, from the places that they kept.",
        permission="batching.operate_batch",
        act=queueing.resume_account,
        states=frozenset({"paused"}),
        icon="play_circle",
    ),
)


def _secret_field(label: str) -> forms.CharField:
    widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})
    return forms.CharField(label=label, required=False, widget=widget)


class AccountForm(ModelForm[Account]):
    """An account whose key and webhook secret are only ever written."""

    api_key = _secret_field("API key")
    webhook_secret = _secret_field("Webhook secret")

    class Meta:
        model = Account
        fields = (
            "name", "kind", "base_url", "api_key", "is_enabled", "project", "poll_seconds",
            "max_requests", "max_bytes", "token_limit", "max_batches_in_flight",
            "max_requests_in_flight", "max_creates_per_hour", "webhook_secret",
        )  # fmt: skip

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        self.stored_key = self.instance.api_key
        self.stored_secret = self.instance.webhook_secret
        if "webhook_secret" in self.fields:
            self.fields["webhook_secret"].help_text = self._secret_help()
        if self.stored_key and "api_key" in self.fields:
            hint = f"Stored: {self.instance.key_hint}. Leave empty to keep it."
            self.fields["api_key"].help_text = hint

    def clean_api_key(self) -> str:
        """Keep the stored key when none is typed."""
        typed: str = self.cleaned_data["api_key"].strip()
        return typed or self.stored_key

    def _secret_help(self) -> str:
        where = f"/hooks/openai/{self.instance.pk}" if self.instance.pk else "/hooks/openai"
        kept = " One is stored: leave empty to keep it, write “none” to drop it."
        told = f"OpenAI only: what it shows when you make a webhook for batch.* events that calls {where} here."
        return told + (kept if self.stored_secret else "")

    def clean_webhook_secret(self) -> str:
        """Keep the stored secret when none is typed."""
        typed: str = self.cleaned_data["webhook_secret"].strip()
        if typed.lower() == "none":
            return ""
        problem = notices.secret_problem(typed) if typed else ""
        if problem:
            raise forms.ValidationError(f"It can't be used: {problem}.")
        return typed or self.stored_secret

    def _post_clean(self) -> None:
        """Refuse a base URL that no call could be made to."""
        super()._post_clean()  # type: ignore[misc]  # Django's own hook
        guard = gateway.guard_of(self.instance)
        if "base_url" in self.errors or guard is None:
            return
        try:
            guard.check_url(self.instance.base_url)
        except InvalidDestinationError as problem:
            self.add_error("base_url", f"It can't be used: {problem}.")


@admin.register(Account)
class AccountAdmin(MovesAdmin[Account], OurAdmin[Account]):
    """Kept by administrators."""

    form = AccountForm
    moves = MOVES
    list_display = ("name", "kind", "base_url", "badge", "hint", "project", "last_trouble")
    list_select_related = ("project",)
    list_filter = (("kind", ChoicesDropdownFilter), AccountStandingFilter)
    search_fields = ("name",)
    search_help_text = "Name"
    ordering = ("name",)
    fieldsets = (
        ("Account", {"fields": (("name", "kind"), "base_url", "api_key", "is_enabled", "project")}),
        ("Limits", {"fields": (
            ("max_requests", "max_bytes"), ("token_limit", "poll_seconds"),
            ("max_batches_in_flight", "max_requests_in_flight"), "max_creates_per_hour",
        )}),
        ("Webhook of the provider", {"fields": ("webhook_secret",)}),
        ("Health", {"fields": (
            "badge", ("paused_at", "pause_reason"), "silent_since", "last_error", "last_error_at", "created_at",
        )}),
    )  # fmt: skip
    readonly_fields = (
        "badge",
        "paused_at",
        "pause_reason",
        "silent_since",
        "last_error",
        "last_error_at",
        "created_at",
    )

    def has_delete_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        """Only those without lanes: the others hold history, and are switched off instead."""
        return super().has_delete_permission(request, obj) and not (obj and obj.lanes.exists())

    @admin.display(description="Standing")
    def badge(self, account: Account) -> SafeString:
        """Whether it is used, and whether it fails."""
        if not account.is_enabled:
            return badge("off", tone=QUIET, icon="toggle_off")
        if account.paused_at:
            return state_badge(account.state)
        if account.silent_since:
            return badge("silent", tone=BAD, icon="cloud_off")
        if account.last_error:
            return badge("failing", tone=BAD, icon="error")
        return badge("on", tone=GOOD, icon="check_circle")

    @admin.display(description="Key")
    def hint(self, account: Account) -> str:
        """The last four characters."""
        return account.key_hint

    @admin.display(description="Last error")
    def last_trouble(self, account: Account) -> SafeString | str:
        """What went wrong last."""
        return shown.cut(account.last_error, 120) or shown.NOTHING
