"""Accounts at providers. An account's key can be written and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.widgets import UnfoldAdminPasswordWidget

from batching import gateway, notices, queueing
from batching.admin import shown
from batching.admin.account_health import health_of, use_of
from batching.admin.account_key import PATIENCE_S, KeyForm, rotate_key
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin, OurChangeList
from batching.admin.standings import AccountStandingFilter
from batching.models import Account
from batching.providers.base import ProviderError
from batching.reach import InvalidDestinationError
from batching.steering import Refused
from batching.templatetags.badges import BAD, GOOD, QUIET, badge, state_badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor


def check_connection(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Ask the provider the cheapest question that proves the key works; raises Refused with its answer.

    Notes what came of it on the account. Call outside of a transaction.
    """
    try:
        gateway.connect(account, patience_s=PATIENCE_S).check()
    except ProviderError as error:
        account.last_error, account.last_error_at = str(error)[:500], now
        account.last_error_class = gateway.class_of(error)
        account.save(update_fields=["last_error", "last_error_at", "last_error_class"])
        raise Refused("provider_refused", f"the provider said: {str(error)[:300]}") from error
    account.last_success_at = None
    gateway.note_success(account, now)


def switch_off(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Use an account for nothing new. Refused when it is off."""
    if not Account.objects.filter(pk=account.pk, is_enabled=True).update(is_enabled=False):
        raise Refused("invalid_state", "it is off already")
    account.refresh_from_db()


def switch_on(account: Account, *, by: Actor, reason: str, now: datetime) -> None:
    """Use an account again. Refused when it is on."""
    if not Account.objects.filter(pk=account.pk, is_enabled=False).update(is_enabled=True):
        raise Refused("invalid_state", "it is on already")
    account.refresh_from_db()


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
        label="Drain",
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
    Move(
        name="switch_off",
        label="Switch off",
        effect="No request is routed to it any more, and none of its batches is started. What the provider holds is "
        "finished and delivered.",
        permission="batching.change_account",
        act=switch_off,
        states=frozenset({"open", "paused"}),
        icon="toggle_off",
        is_dangerous=True,
    ),
    Move(
        name="switch_on",
        label="Switch on",
        effect="Requests are routed to it again, and its batches are started as far as there is room.",
        permission="batching.change_account",
        act=switch_on,
        states=frozenset({"off"}),
        icon="toggle_on",
    ),
    Move(
        name="rotate_key",
        label="Rotate key",
        effect="The new key is tried at the provider, which costs nothing, and is in use as soon as it works. The old "
        "one is forgotten here; revoke it at the provider afterwards.",
        permission="batching.change_account",
        act=rotate_key,
        page=rotate_key,
        form=KeyForm,
        icon="key",
        is_for_one=True,
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


class AccountList(OurChangeList):
    """A page of accounts with what they have at their providers: one query for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        """Put on each account of the page what it uses."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = use_of(self.result_list)
        for account in self.result_list:
            account.use = found[account.pk]


@admin.register(Account)
class AccountAdmin(MovesAdmin[Account], OurAdmin[Account]):
    """Kept by administrators."""

    form = AccountForm
    moves = MOVES
    list_display = (
        "name", "kind", "base_url", "badge", "in_flight", "last_success", "hint", "project", "last_trouble",
    )  # fmt: skip
    list_select_related = ("project",)
    list_filter = (("kind", ChoicesDropdownFilter), AccountStandingFilter)
    search_fields = ("name",)
    search_help_text = "Name"
    ordering = ("name",)
    change_form_outer_before_template = "batcher/admin/_account_head.html"
    fieldsets = (
        ("Account", {"fields": (("name", "kind"), "base_url", "api_key", "is_enabled", "project")}),
        ("Limits", {"fields": (
            ("max_requests", "max_bytes"), ("token_limit", "poll_seconds"),
            ("max_batches_in_flight", "max_requests_in_flight"), "max_creates_per_hour",
        )}),
        ("Webhook of the provider", {"fields": ("webhook_secret",)}),
        ("About this account", {"fields": ("badge", ("pause_reason", "created_at"))}),
    )  # fmt: skip
    readonly_fields = ("badge", "pause_reason", "created_at")

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[AccountList]:
        """Use the list with figures."""
        return AccountList

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show an account with its health, what it has at its provider and what it can do."""
        row = self.row_at(request, object_id)
        if row is not None:
            extra_context = {**(extra_context or {}), **health_of(row, timezone.now())}
        return super().change_view(request, object_id, form_url, extra_context)

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

    @admin.display(description="Batches there")
    def in_flight(self, account: Account) -> SafeString | str:
        """At the provider of how many it may have, and requests in them."""
        use = account.use  # type: ignore[attr-defined]  # put there by AccountList
        return shown.two_lines(use.batches_in_words, f"{use.requests:,} requests")

    @admin.display(description="Last success")
    def last_success(self, account: Account) -> SafeString | str:
        """When the provider took a call last, to the minute."""
        return shown.age(account.last_success_at)

    @admin.display(description="Last error")
    def last_trouble(self, account: Account) -> SafeString | str:
        """What went wrong last."""
        if not account.last_error:
            return shown.NOTHING
        words = account.last_error_class or "an error"
        return shown.two_lines(words, shown.cut_short(account.last_error, 60))
