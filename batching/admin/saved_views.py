"""Views that a person keeps of a list: a menu above it, a name for its filters, and taking one away.

A list whose admin is ``SavedViews`` has them. A view is its owner's alone and holds an address, never rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from batching.admin.listing import filter_of
from batching.admin.rows import OurAdmin, Row
from batching.models import SavedView

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

MOST: Final = 50
"""Views of one list that a person may keep."""


class ViewForm(forms.Form):
    """Takes a name and the list's address."""

    name = forms.CharField(max_length=60)
    query = forms.CharField(required=False, max_length=4_000)


class SavedViews(OurAdmin[Row], Generic[Row]):
    """A list that keeps views for each person."""

    def get_urls(self) -> list[URLPattern]:
        """Add keeping a view, and taking one away."""
        wrap, name = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("views/", wrap(require_POST(self._keep)), name=f"{name}_keep_view"),
            path("views/<int:pk>/drop/", wrap(require_POST(self._drop)), name=f"{name}_drop_view"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Offer the views that this person keeps of this list."""
        here = filter_of(request.GET.urlencode())
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        offered = [
            {
                "name": view.name,
                "url": f"?{view.query}",
                "is_here": view.query == here,
                "drop_url": reverse(f"{name}_drop_view", args=[view.pk]),
            }
            for view in self._of(request)
        ]
        context = {
            "saved_views": offered,
            "view_here": here,
            "keep_url": reverse(f"{name}_keep_view"),
        }
        return super().changelist_view(request, {**(extra_context or {}), **context})

    def _of(self, request: HttpRequest) -> QuerySet[SavedView]:
        mine = SavedView.objects.filter(user_id=request.user.pk or 0, rows_of=self.opts.label_lower)
        return mine.order_by("name")

    def _keep(self, request: HttpRequest) -> HttpResponse:
        """Keep the address under a name; a name that is there already means the new address."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = ViewForm(request.POST)
        if not form.is_valid():
            messages.error(request, "A view needs a name of up to 60 characters.")
            return self._back(filter_of(request.POST.get("query", "")[:4_000]))
        query, name = filter_of(form.cleaned_data["query"]), form.cleaned_data["name"]
        if self._of(request).exclude(name=name).count() >= MOST:
            messages.error(request, f"{MOST} views are kept already; take one away first.")
            return self._back(query)
        same = {"user_id": request.user.pk, "rows_of": self.opts.label_lower, "name": name}
        SavedView.objects.update_or_create(**same, defaults={"query": query})
        messages.success(request, f"The view “{name}” is kept.")
        return self._back(query)

    def _drop(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Take a view of one's own away."""
        self._of(request).filter(pk=pk).delete()
        return self._back(filter_of(request.POST.get("query", "")[:4_000]))

    def _back(self, query: str) -> HttpResponse:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
        return HttpResponseRedirect(f"{reverse(name)}?{query}" if query else reverse(name))
