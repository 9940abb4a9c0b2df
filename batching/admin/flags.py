"""Switches that hold for every process: maintenance mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from batching.admin import shown
from batching.admin.rows import ModelForm, OurAdmin
from batching.models import Flag
from batching.templatetags.badges import QUIET, WARNING, badge

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

KNOWN = (
    (Flag.MAINTENANCE, "maintenance: new requests are refused with 503; what was accepted goes on"),
)


class FlagForm(ModelForm[Flag]):
    """A switch that the code knows, whether it is on, and why."""

    name = forms.ChoiceField(choices=KNOWN, widget=UnfoldAdminSelectWidget)

    class Meta:
        model = Flag
        fields = ("name", "is_on", "reason")


@admin.register(Flag)
class FlagAdmin(OurAdmin[Flag]):
    """Set by operators."""

    form = FlagForm
    list_display = ("name", "badge", "reason", "since")
    ordering = ("name",)
    fields = ("name", "is_on", "reason", "changed_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Flag | None = None) -> tuple[str, ...]:
        """Keep a switch's name once it is there."""
        return ("changed_at", "name") if obj else ("changed_at",)

    def has_delete_permission(self, request: HttpRequest, obj: Flag | None = None) -> bool:
        """Nobody: a switch is turned off."""
        return False

    def save_model(self, request: HttpRequest, obj: Flag, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        """Note when it was set."""
        obj.changed_at = timezone.now()
        super().save_model(request, obj, form, change)

    @admin.display(description="Now")
    def badge(self, flag: Flag) -> SafeString:
        """On or off."""
        if flag.is_on:
            return badge("on", tone=WARNING, icon="toggle_on")
        return badge("off", tone=QUIET, icon="toggle_off")

    @admin.display(description="Set")
    def since(self, flag: Flag) -> SafeString | str:
        """How long ago it was set."""
        return shown.age(flag.changed_at)
