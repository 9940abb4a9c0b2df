"""Limits that an operator sets, and one page that shows each setting with its value and where it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path
from unfold.widgets import UnfoldAdminTextInputWidget

from batching.admin import shown
from batching.admin.rows import ModelForm, OurAdmin
from batching.limits import configured_tokens, read_model_limits
from batching.models import Account, Flag, Lane, TokenLimit
from batching.providers.registry import KINDS, limits_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest
    from django.urls import URLPattern

SEE, KEEP = "batching.view_account", "batching.change_account"
LANES_SHOWN: Final = 200
_SECRETS: Final = ("account__api_key", "account__webhook_secret")
_DIGITS = re.compile(r"[0-9][0-9, _']*")
_MOST = 10**15
_OF_ACCOUNT: Final = (
    ("poll_seconds", "Seconds between looks"),
    ("max_requests", "Requests in one batch"),
    ("max_bytes", "Bytes of one batch"),
    ("token_limit", "Enqueued tokens of any model"),
    ("max_batches_in_flight", "Batches at the provider"),
    ("max_requests_in_flight", "Requests at the provider"),
    ("max_creates_per_hour", "Batches created in an hour"),
)


class TokenLimitForm(ModelForm[TokenLimit]):
    """A figure as people write it: 1,234,567."""

    tokens = forms.CharField(widget=UnfoldAdminTextInputWidget, help_text="Such as 1,234,567.")

    class Meta:
        model = TokenLimit
        fields = ("account", "prefix", "tokens")

    def clean_prefix(self) -> str:
        """Compare models as their names are compared: small letters, no spaces around."""
        prefix: str = self.cleaned_data["prefix"]
        return prefix.strip().lower()

    def clean_tokens(self) -> int:
        """Read digits, with or without separators."""
        typed = self.cleaned_data["tokens"].strip()
        digits = re.sub("[^0-9]", "", typed) if _DIGITS.fullmatch(typed) else ""
        if not digits or not 0 < int(digits) <= _MOST:
            raise forms.ValidationError("Write a whole number above 0, such as 1,234,567.")
        return int(digits)


@admin.register(TokenLimit)
class TokenLimitAdmin(OurAdmin[TokenLimit]):
    """Kept by those who keep accounts; deleting a row gives the built-in table back."""

    form = TokenLimitForm
    list_display = ("prefix", "figure", "account")
    list_select_related = ("account",)
    ordering = ("prefix", "account")
    fields = ("prefix", "tokens", "account")

    def get_urls(self) -> list[URLPattern]:
        """Add the page of all settings."""
        seen = self.admin_site.admin_view(settings_page)
        return [path("settings/", seen, name="batching_settings"), *super().get_urls()]

    def has_view_permission(self, request: HttpRequest, obj: TokenLimit | None = None) -> bool:
        """Those who see accounts."""
        return request.user.has_perm(SEE)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Those who keep accounts."""
        return request.user.has_perm(KEEP)

    def has_change_permission(self, request: HttpRequest, obj: TokenLimit | None = None) -> bool:
        """Those who keep accounts."""
        return request.user.has_perm(KEEP)

    def has_delete_permission(self, request: HttpRequest, obj: TokenLimit | None = None) -> bool:
        """Those who keep accounts."""
        return request.user.has_perm(KEEP)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Those who see accounts."""
        return request.user.has_perm(SEE)

    @admin.display(description="Enqueued tokens")
    def figure(self, row: TokenLimit) -> str:
        """With commas."""
        return shown.number(row.tokens)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as it holds now."""

    name: str
    value: str
    source: str
    """``default``, ``environment``, ``row``, ``provider``, ``table`` or ``none``."""
    about: str = ""
    url: str = ""
    """Where it is changed; empty: in the environment, with the next start."""


def settings_page(request: HttpRequest) -> TemplateResponse:
    """Show each setting with its value and source. Raises PermissionDenied."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    context = {
        **admin.site.each_context(request),
        "title": "Settings",
        "sections": [
            ("Switches", list(_switches())),
            ("Accounts", list(_of_accounts())),
            ("Enqueued tokens of a model", list(_of_models())),
            (f"Lanes (the newest {LANES_SHOWN})", list(_of_lanes())),
            ("For all", list(_of_environment())),
        ],
    }
    return TemplateResponse(request, "batcher/admin/settings.html", context)


def _switches() -> Iterator[Setting]:
    row = Flag.objects.filter(name=Flag.MAINTENANCE).first()
    yield Setting(
        name="maintenance",
        value="on" if row and row.is_on else "off",
        source="row" if row else "default",
        about=row.reason if row else "",
        url=shown.page_of(row) if row else shown.list_of("batching.flag"),
    )


def _of_accounts() -> Iterator[Setting]:
    for account in Account.objects.defer("api_key", "webhook_secret").order_by("name"):
        for field, about in _OF_ACCOUNT:
            value, source = _effective(account, field)
            yield Setting(
                name=f"{account.name} · {field}", value=value, source=source, about=about,
                url=shown.page_of(account),
            )  # fmt: skip


def _effective(account: Account, field: str) -> tuple[str, str]:
    """Return what holds for an account, and who says so: its row, its provider, or the rest of us."""
    own = getattr(account, field)
    if own:
        return shown.number(own), "row"
    if field == "poll_seconds":
        return shown.number(settings.BATCHER_POLL_SECONDS), _source("BATCHER_POLL_SECONDS")
    providers = getattr(limits_for(account.kind), field, None) if account.kind in KINDS else None
    if providers is not None:
        return shown.number(providers), "provider"
    return ("by model", "table") if field == "token_limit" else ("no limit", "none")


def _of_models() -> Iterator[Setting]:
    rows = TokenLimit.objects.select_related("account").defer(*_SECRETS)
    for row in rows.order_by("prefix", "account"):
        whose = f" · {row.account.name}" if row.account else ""
        yield Setting(
            name=f"{row.prefix}…{whose}", value=shown.number(row.tokens), source="row",
            url=shown.page_of(row),
        )  # fmt: skip


def _of_lanes() -> Iterator[Setting]:
    lanes = Lane.objects.select_related("account").defer(*_SECRETS).order_by("-pk")[:LANES_SHOWN]
    read_model_limits(lanes)
    for lane in lanes:
        tokens, source = configured_tokens(lane)
        yield Setting(
            name=f"{lane} · token_limit", value=shown.number(tokens),
            source="table" if source == "table" else f"row ({source})", url=shown.page_of(lane),
        )  # fmt: skip


def _of_environment() -> Iterator[Setting]:
    """Yield what the environment may say, but for secrets and addresses that may hold one."""
    for variable in settings.ENVIRONMENT.declared:
        if not variable.is_secret and variable.name.startswith("BATCHER_"):
            value: Any = getattr(settings, variable.name, None)
            yield Setting(
                name=variable.name, value=_worded(value, variable.default),
                source=_source(variable.name), about=variable.description,
            )  # fmt: skip


def _worded(value: Any, default: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in (None, "") else default or "none"


def _source(name: str) -> str:
    return "environment" if settings.ENVIRONMENT.gives(name) else "default"
