"""Files of clients: what they uploaded, and the output of their batches. Never their content.

Whoever may look at submissions may look at these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from unfold.contrib.filters.admin import RelatedDropdownFilter

from batching.admin import shown
from batching.admin.rows import MachineRows
from batching.models import ClientFile

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


@admin.register(ClientFile)
class ClientFileAdmin(MachineRows[ClientFile]):
    """Made by clients through /v1."""

    list_display = (
        "key",
        "filename",
        "project",
        "purpose",
        "size",
        "age",
        "expires_at",
        "deleted_at",
    )
    list_display_links = ("key",)
    list_select_related = ("project",)
    list_filter = (("project", RelatedDropdownFilter), "purpose")
    search_fields = ("key",)
    search_help_text = "Key (file-…)"
    fields = (
        "key", "filename", "project", "purpose", "size", "sha256", ("submission", "side"),
        ("created_at", "expires_at", "deleted_at"),
    )  # fmt: skip

    def has_view_permission(self, request: HttpRequest, obj: ClientFile | None = None) -> bool:
        """As for submissions."""
        return request.user.has_perm("batching.view_submission")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """As for submissions."""
        return request.user.has_perm("batching.view_submission")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ClientFile], search_term: str
    ) -> tuple[QuerySet[ClientFile], bool]:
        """Find by key."""
        term = search_term.strip()
        return (queryset.filter(key=term) if term else queryset), False

    @admin.display(description="Size")
    def size(self, row: ClientFile) -> str:
        """In plain units; a batch's output grows until the batch has ended."""
        return shown.size(row.size_bytes)

    @admin.display(description="Age")
    def age(self, row: ClientFile) -> SafeString | str:
        """Time since it came."""
        return shown.age(row.created_at)
