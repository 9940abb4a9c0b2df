"""Projects: the tenants, with their keys and destinations one step away."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from django.contrib import admin
from django.utils import timezone

from batching.admin import shown
from batching.admin.rows import OurAdmin
from batching.models import DirectSpend, Project

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


@admin.register(Project)
class ProjectAdmin(OurAdmin[Project]):
    """Made by administrators; never deleted, for that would take all its requests along."""

    list_display = ("name", "deadline_policy", "created_at", "keys", "destinations", "requests")
    search_fields = ("name",)
    search_help_text = "Name"
    ordering = ("name",)
    fields = ("name", ("deadline_policy", "direct_cap"), "spent_today", "created_at")
    readonly_fields = ("spent_today", "created_at")

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        """Nobody."""
        return False

    @admin.display(description="Direct answers today")
    def spent_today(self, project: Project) -> str:
        """What they cost so far, open ones at the most they may cost."""
        today = timezone.now().astimezone(UTC).date()
        spend = DirectSpend.objects.filter(project=project, day=today).first()
        return shown.money(max(0, spend.nano) if spend else 0)

    @admin.display(description="API keys")
    def keys(self, project: Project) -> SafeString:
        """Link to its keys."""
        return shown.link(shown.list_of("batching.apikey", project__id__exact=project.pk), "keys")

    @admin.display(description="Destinations")
    def destinations(self, project: Project) -> SafeString:
        """Link to its destinations."""
        url = shown.list_of("batching.destination", project__id__exact=project.pk)
        return shown.link(url, "destinations")

    @admin.display(description="Requests")
    def requests(self, project: Project) -> SafeString:
        """Link to its requests."""
        url = shown.list_of("batching.request", project__id__exact=project.pk)
        return shown.link(url, "requests")
