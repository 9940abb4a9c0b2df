"""Limits that an operator sets for models; `setting_pages` shows them among all others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from unfold.widgets import UnfoldAdminTextInputWidget

from batching.admin import shown
from batching.admin.rows import ModelForm, OurAdmin
from batching.models import TokenLimit

if TYPE_CHECKING:
    from django.http import HttpRequest

SEE, KEEP = "batching.view_account", "batching.change_account"
_DIGITS = re.compile(r"[0-9][0-9, _']*")
_MOST = 10**15


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
