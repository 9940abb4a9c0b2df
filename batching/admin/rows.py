"""What all our admin pages share: read-only machine rows, capped counts, no scan of a big table.

Every module of this package builds on these classes. They decide who may add, change or delete; never
what an action does (``moves``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.contrib.admin import ShowFacets, display
from django.contrib.admin.utils import unquote
from django.core.paginator import Paginator
from django.db.models import DateTimeField, Model, QuerySet
from django.utils.functional import cached_property

from batching.admin import shown
from batching.audit import Seen, changes, facts, record
from batching.lifecycle import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.admin import ModelAdmin
    from django.contrib.admin.views.main import ChangeList
    from django.forms import ModelForm
    from django.http import HttpRequest
else:
    from django import forms
    from unfold.admin import ModelAdmin as ThemedAdmin
    from unfold.views import ChangeList

    from batching.admin import theme_cells

    class ModelForm(forms.ModelForm):
        """Django's form, with the type parameter that django-stubs gives to it."""

        def __class_getitem__(cls, _model: object) -> type[ModelForm]:
            return cls

    class ModelAdmin(ThemedAdmin):
        """The theme's admin, with the type parameter that django-stubs gives to Django's, and cheaper rows."""

        list_sections = ()  # asked for twice a row; a template finds dearly what is missing

        @display(description=ThemedAdmin.action_checkbox.short_description)
        def action_checkbox(self, obj: Model) -> str:
            """Draw the checkbox of a row without a template."""
            return theme_cells.action_checkbox(obj.pk)

        def __class_getitem__(cls, _model: object) -> type[ModelAdmin]:
            return cls


Row = TypeVar("Row", bound=Model)

__all__ = [
    "Audited", "CappedPaginator", "MachineRows", "ModelAdmin", "ModelForm", "OurAdmin", "Row", "count_up_to",
]  # fmt: skip

MOST_COUNTED = 10_000
PAGE_SIZE = 50
ROWS_ALONE = "batcher.rows_alone"
"""In the META of a request that wants to know what is listed, and no page of it."""


class CappedPaginator(Paginator):  # type: ignore[type-arg]  # rows of any model
    """Counts at most MOST_COUNTED rows, by an index, and pages through those; "10,000+" beyond."""

    template_name = "batcher/admin/_pagination.html"

    @cached_property
    def counted(self) -> int:
        """Rows found, looking no further than one past the cap."""
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return count_up_to(rows, MOST_COUNTED + 1)
        return min(len(rows), MOST_COUNTED + 1)

    @cached_property
    def count(self) -> int:
        """Rows that can be paged through."""
        return min(self.counted, MOST_COUNTED)

    @property
    def is_capped(self) -> bool:
        """True when there are more rows than were counted."""
        return self.counted > MOST_COUNTED


def count_up_to(rows: QuerySet[Any], most: int) -> int:
    """Count rows, reading no more than ``most`` of them, and nothing but their keys."""
    return rows.order_by().values("pk")[:most].count()


class OurChangeList(ChangeList):
    """A list that offers "show all" only when something is filtered out, and sorts as it was told to."""

    def get_results(self, request: HttpRequest) -> None:
        """Say that everything is shown when nothing is asked for."""
        if ROWS_ALONE in request.META:
            return
        super().get_results(request)
        if not self.query and not self.get_filters_params():
            self.full_result_count = self.result_count

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Keep to the index's order where no column is sortable; Django would take any from the URL."""
        if self.sortable_by == ():
            return list(self.model_admin.get_ordering(request))
        return list(super().get_ordering(request, queryset))


class Audited(ModelAdmin[Row], Generic[Row]):
    """Records what is added, changed and deleted here, in the transaction of the form."""

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:  # noqa: FBT001  # Django's signature
        """Look at the row as it is before the form's values are written."""
        if change:
            before = self.model._base_manager.get(pk=form.instance.pk)
            request.META["batcher.before"] = Seen.now(before)
        return super().save_form(request, form, change)

    def log_addition(self, request: HttpRequest, obj: Row, message: Any) -> Any:
        """Record the new row."""
        _record(request, "add", obj, after=facts(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Row, message: Any) -> Any:
        """Record what differs."""
        seen = request.META.pop("batcher.before", None)
        before, after = changes(seen, Seen.now(obj)) if seen else ({}, {})
        if before or after or seen is None:
            _record(request, "change", obj, before=before, after=after)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Record what the rows were."""
        for obj in queryset:
            _record(request, "delete", obj, before=facts(obj))
        return super().log_deletions(request, queryset)


def _record(request: HttpRequest, verb: str, row: Model, **what: Any) -> None:
    by = Actor(name=request.user.get_username(), user_id=int(request.user.pk or 0))
    record(f"{row._meta.model_name}.{verb}", by=by, row=row, **what)


class OurAdmin(Audited[Row], Generic[Row]):
    """The ground of every page: cheap lists, newest first, no select-all over pages."""

    show_full_result_count = False
    show_facets = ShowFacets.NEVER  # each facet would count the table
    paginator = CappedPaginator
    list_per_page = PAGE_SIZE
    list_max_show_all = 0
    list_fullwidth = True
    list_disable_select_all = True
    list_filter_submit = True
    compressed_fields = True
    teaches = ""
    """What makes such rows, for a list that has none."""
    deferred_in_lists: tuple[str, ...] = ()
    """Big columns that a list never shows; the state is never one of them."""

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[ChangeList]:
        """Use our list."""
        return OurChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Row]:
        """Leave big columns out of lists."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        if match and str(match.url_name).endswith("_changelist"):
            return rows.defer(*self.deferred_in_lists)
        return rows

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Let moments stand in lists as everywhere: in the browser's zone."""
        return [self._shown(name) for name in super().get_list_display(request)]

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        """Link the columns that were named, moments among them."""
        links = super().get_list_display_links(request, list_display)
        return [self._shown(name) for name in links or ()] or None

    def _shown(self, name: Any) -> Any:
        """Return what shows a column: for a moment of the model a function, else the name itself."""
        field = self._moments.get(name) if isinstance(name, str) else None
        return field or name

    @cached_property
    def _moments(self) -> dict[str, Callable[[Row], Any]]:
        fields = self.opts.get_fields()
        return {f.name: _moment_column(f) for f in fields if isinstance(f, DateTimeField)}

    def row_at(self, request: HttpRequest, object_id: str) -> Row | None:
        """Return the row that a detail URL names, or None."""
        return self.get_object(request, unquote(object_id))


def _moment_column(field: DateTimeField[Any, Any]) -> Callable[[Any], Any]:
    @display(description=field.verbose_name, ordering=field.name)
    def column(row: Any) -> Any:
        return shown.moment(getattr(row, field.name))

    return column


class MachineRows(OurAdmin[Row], Generic[Row]):
    """Rows that only our own phases write: anyone with the view permission may look, nobody edits."""

    sortable_by = ()  # only the index's own order is cheap
    ordering = ("-pk",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Nobody; actions have permissions of their own."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Nobody; a batch is deleted by its own action."""
        return False
