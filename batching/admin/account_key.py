"""Giving an account a new key: tried at the provider first, written only when it works, and never shown or logged.

A page of its own behind the button of that name, because what it asks for must not reach the audit log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponseRedirect
from unfold.widgets import UnfoldAdminPasswordWidget

from batching import audit, gateway
from batching.admin import shown
from batching.admin.audit import note
from batching.admin.moves import ReasonForm
from batching.audit import Seen, changes
from batching.lifecycle import Actor
from batching.models import Account
from batching.providers.base import ProviderError

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

PATIENCE_S: Final = 10.0
"""How long a person waits for a provider's answer."""


class KeyForm(ReasonForm):
    """Asks for the new key as well."""

    new_key = forms.CharField(
        label="New API key",
        max_length=500,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "autofocus": True}),
        help_text="Tried at the provider before it is stored. The one in use holds until then.",
    )
    field_order = ("new_key", "reason")


def rotate_key(model_admin: Any, request: HttpRequest, row: Account) -> HttpResponse:
    """Ask for a key, try it, store it; the confirmation is shown again when the provider refuses it."""
    move = next(one for one in model_admin.moves if one.name == "rotate_key")
    form = KeyForm(request.POST if "confirmed" in request.POST else None)
    if not form.is_bound or not form.is_valid():
        answer: HttpResponse = model_admin._confirmation(request, move, [row], is_selection=False)
        return answer
    before = Seen.now(row)
    row.api_key = form.cleaned_data["new_key"].strip()
    if problem := _problem(row):
        messages.error(request, f"The key was not changed; the provider said: {problem[:300]}")
        return HttpResponseRedirect(request.get_full_path())
    by = Actor(name=request.user.get_username(), user_id=int(request.user.pk or 0))
    reason = form.cleaned_data["reason"]
    with transaction.atomic():
        row.last_error, row.last_error_at, row.last_error_class = "", None, ""
        row.save(update_fields=["api_key", "last_error", "last_error_at", "last_error_class"])
        was, is_ = changes(before, Seen.now(row))
        audit.record("account.rotate_key", by=by, row=row, reason=reason, before=was, after=is_)
        note(Account, row.pk, str(row), f"Rotate key: {reason}", user_id=int(request.user.pk or 0))
    messages.success(
        request, "The new key works and is in use from now on. Revoke the old one at the provider."
    )
    return HttpResponseRedirect(shown.page_of(row))


def _problem(row: Account) -> str:
    """Return why the account does not work as it is in memory; empty when it does."""
    try:
        gateway.connect(row, patience_s=PATIENCE_S).check()
    except ProviderError as error:
        return str(error)
    return ""
