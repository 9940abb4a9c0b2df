"""Accounts at providers and their lanes. An account's key can be written and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from django.db.models import Count, Q
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminPasswordWidget

from batching import gateway, turnaround
from batching.admin import shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelForm, OurAdmin
from batching.lifecycle import BATCH_ENDS
from batching.models import Account, Lane
from batching.providers.base import ProviderError
from batching.reach import InvalidDestinationError
from batching.steering import Refused
from batching.templatetags.badges import BAD, GOOD, QUIET, badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
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
)


class AccountForm(ModelForm[Account]):
    """An account whose key is only ever written."""

    api_key = forms.CharField(
        label="API key",
        required=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )

    class Meta:
        model = Account
        fields = (
            "name", "kind", "base_url", "api_key", "is_enabled", "project", "poll_seconds",
            "max_requests", "max_bytes", "token_limit",
        )  # fmt: skip

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        self.stored_key = self.instance.api_key
        if self.stored_key and "api_key" in self.fields:
            hint = f"Stored: {self.instance.key_hint}. Leave empty to keep it."
            self.fields["api_key"].help_text = hint

    def clean_api_key(self) -> str:
        """Keep the stored key when none is typed."""
        typed: str = self.cleaned_data["api_key"].strip()
        return typed or self.stored_key

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
    list_filter = (("kind", ChoicesDropdownFilter),)
    search_fields = ("name",)
    search_help_text = "Name"
    ordering = ("name",)
    fieldsets = (
        ("Account", {"fields": (("name", "kind"), "base_url", "api_key", "is_enabled", "project")}),
        ("Limits", {"fields": (
            ("max_requests", "max_bytes"), ("token_limit", "poll_seconds"),
        )}),
        ("Health", {"fields": ("badge", "last_error", "last_error_at", "created_at")}),
    )  # fmt: skip
    readonly_fields = ("badge", "last_error", "last_error_at", "created_at")

    def has_delete_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        """Only those without lanes: the others hold history, and are switched off instead."""
        return super().has_delete_permission(request, obj) and not (obj and obj.lanes.exists())

    @admin.display(description="Standing")
    def badge(self, account: Account) -> SafeString:
        """Whether it is used, and whether it fails."""
        if not account.is_enabled:
            return badge("off", tone=QUIET, icon="toggle_off")
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


@admin.register(Lane)
class LaneAdmin(OurAdmin[Lane]):
    """Made by intake; only its token limit is a person's to set."""

    list_display = ("model", "endpoint", "account", "open_batches", "token_limit", "batches")
    list_display_links = ("model",)
    list_select_related = ("account",)
    list_filter = (("account", RelatedDropdownFilter),)
    search_fields = ("model",)
    search_help_text = "Model, as the provider names it"
    ordering = ("-pk",)
    fields = (("account", "created_at"), ("model", "endpoint"), "token_limit", "takes", "batches")
    readonly_fields = ("account", "model", "endpoint", "created_at", "takes", "batches")

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

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: the first request makes it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Lane | None = None) -> bool:
        """Nobody: batches and requests point to it."""
        return False

    @admin.display(description="Batches under way")
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
