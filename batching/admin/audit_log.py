"""The audit log, to be read and filtered; the database itself keeps anyone from changing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from unfold.contrib.filters.admin import FieldTextFilter

from batching.admin import shown
from batching.admin.rows import MachineRows
from batching.models import AuditEntry

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.db.models import Field, Model, QuerySet
    from django.http import HttpRequest


class ExactFilter(FieldTextFilter):  # type: ignore[misc]  # the theme has no types
    """Asks for the whole text, which an index finds."""

    def __init__(
        self,
        field: Field[Any, Any],
        request: HttpRequest,
        params: dict[str, Any],
        model: type[Model],
        model_admin: ModelAdmin[Any],
        field_path: str,
    ) -> None:
        given = params.get(field_path)
        super().__init__(field, request, params, model, model_admin, field_path)
        self.lookup_kwarg, self.lookup_val = field_path, given

    def expected_parameters(self) -> list[str]:
        """Name the one parameter."""
        return [self.field_path]


@admin.register(AuditEntry)
class AuditEntryAdmin(MachineRows[AuditEntry]):
    """Who did what, newest first."""

    list_display = ("at", "actor", "action", "thing", "reason", "ip")
    list_display_links = ("at",)
    list_filter = (("action", ExactFilter), ("actor", ExactFilter), ("object_type", ExactFilter))
    search_fields = ("object_key",)
    search_help_text = "Key or number of what it was done to"
    deferred_in_lists = ("before", "after")
    fields = (
        "at", ("actor", "user_id"), ("ip", "call_id"), "action", ("object_type", "object_key"),
        "object_name", "reason", "was", "is_now",
    )  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Find what was done to the object with this key."""
        term = search_term.strip()
        return (queryset.filter(object_key=term) if term else queryset), False

    @admin.display(description="Object")
    def thing(self, entry: AuditEntry) -> str:
        """What it was done to, as it was named then."""
        return shown.cut(f"{entry.object_type} {entry.object_name}".strip(), 120) or shown.NOTHING

    @admin.display(description="Before")
    def was(self, entry: AuditEntry) -> str:
        """Members that changed, as they were."""
        return _text(entry.before)

    @admin.display(description="After")
    def is_now(self, entry: AuditEntry) -> str:
        """Members that changed, as they became."""
        return _text(entry.after)


def _text(members: object) -> str:
    return json.dumps(members, ensure_ascii=False) if members else shown.NOTHING
