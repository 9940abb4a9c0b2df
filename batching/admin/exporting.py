"""Ordering an export, carrying it out as the list's own filters say, and downloading its file.

The order page counts what is listed, shows five of the requests, and asks for the form, the columns and a reason.
What clients sent and providers answered may be chosen, and downloaded, only by those who may read that. Each
order and each download is logged. `batching.exports` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import FileResponse, Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminRadioSelectWidget

from batching import audit, exports, walks
from batching.admin import shown
from batching.admin.listing import filter_of, in_words, rows_listed
from batching.admin.moves import ReasonForm
from batching.admin.payloads import PAYLOAD_PERMISSION
from batching.exportlines import COLUMNS
from batching.lifecycle import Actor
from batching.models import Export, Request
from batching.steering import Refused

if TYPE_CHECKING:
    from datetime import datetime

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from batching.admin.requests import RequestAdmin
    from batching.admin.rows import OurAdmin

EXPORT: Final = "batching.order_export"
_USUAL: Final = [column.name for column in COLUMNS if column.is_usual]


class ExportForm(ReasonForm):
    """Asks what the file should hold."""

    form = forms.ChoiceField(
        label="Form",
        choices=Export.Form.choices,
        initial=Export.Form.NDJSON,
        widget=UnfoldAdminRadioSelectWidget,
    )
    columns = forms.MultipleChoiceField(
        label="Columns", initial=_USUAL, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    field_order = ("form", "columns", "reason")

    def __init__(self, *args: Any, may_read: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = [column for column in COLUMNS if may_read or not column.is_payload]
        columns = self.fields["columns"]
        columns.choices = [(c.name, c.name.replace("_", " ")) for c in offered]  # type: ignore[attr-defined]
        if may_read:
            columns.help_text = (
                "Metadata, body and answer are what clients sent and providers answered."
            )
        self.fields["reason"].widget.attrs.pop("autofocus", None)


def order_view(request: HttpRequest, request_admin: RequestAdmin) -> HttpResponse:
    """Show what an export of the list at this address means; with a reason, order it."""
    if not request.user.has_perm(EXPORT) or not request_admin.has_view_permission(request):
        raise PermissionDenied
    may_read = request.user.has_perm(PAYLOAD_PERMISSION)
    form = ExportForm(request.POST if request.method == "POST" else None, may_read=may_read)
    query = filter_of(request.GET.urlencode())
    try:
        if form.is_bound and form.is_valid():
            export = _start(request, query, form.cleaned_data)
            messages.success(request, "The export begins within seconds.")
            return HttpResponseRedirect(shown.page_of(export))
        rows = rows_listed(request_admin, request.user, query)
        first, top = walks.bounds_of_all(Request)
        look = walks.look(rows, first=first, top=top)
    except Refused as refusal:
        messages.error(request, f"Nothing was ordered: {refusal.detail}.")
        return HttpResponseRedirect(shown.list_of("batching.request"))
    context = {
        **request_admin.admin_site.each_context(request),
        "opts": request_admin.opts,
        "title": "Export",
        "look": look,
        "samples": [(row, shown.page_of(row)) for row in look.samples],
        "filter": in_words(query),
        "form": form,
        "kept": shown.duration(exports.KEPT),
        "back": f"{shown.list_of('batching.request')}?{query}",
    }
    return TemplateResponse(request, "batcher/admin/export_order.html", context)


def _start(request: HttpRequest, query: str, given: dict[str, Any]) -> Export:
    by, now = _actor(request.user), timezone.now()
    with transaction.atomic():
        export = exports.start(
            query=query, form=given["form"], columns=given["columns"], by=by,
            reason=given["reason"], now=now,
        )  # fmt: skip
        facts = exports.facts_of(export)
        audit.record("export.order", by=by, row=export, reason=given["reason"], after=facts)
    return export


def _actor(user: User | AnonymousUser) -> Actor:
    return Actor(name=user.get_username(), user_id=int(user.pk or 0))


@require_safe
def download_view(
    request: HttpRequest, object_id: str, export_admin: OurAdmin[Export]
) -> HttpResponseBase:
    """Stream an export's file to those who may have it, and log who had it."""
    export = export_admin.row_at(request, object_id)
    if not may_download(request.user, export):
        raise PermissionDenied
    if export is None or not export.is_there:
        raise Http404("the export is not done, or its file's time is over")
    try:
        file = exports.path_of(export).open("rb")
    except FileNotFoundError as problem:
        raise Http404("its file is gone from DATA_DIR; order it again") from problem
    audit.record("export.download", by=_actor(request.user), row=export)
    return FileResponse(
        file,
        as_attachment=True,
        filename=export.filename,
        content_type="text/csv; charset=utf-8" if export.form == "csv" else "application/x-ndjson",
    )


def may_download(user: User | AnonymousUser, export: Export | None) -> bool:
    """Return whether this user may have an export's file: with what clients sent in it, only who may read that."""
    needed = [EXPORT] if export is None or not export.has_payload else [EXPORT, PAYLOAD_PERMISSION]
    return user.has_perms(needed)


def step_due(now: datetime) -> int:
    """Go on with exports that are due; return how many lines were written."""
    return exports.step_due(now, rows_of=_rows_of)


def _rows_of(export: Export) -> QuerySet[Request]:
    """Return what the list at an export's address shows to whoever ordered it. Raises Hopeless."""
    user = get_user_model()._base_manager.filter(pk=export.user_id or 0).first()
    if user is None:
        raise exports.Hopeless("whoever ordered it is no user any more")
    try:
        return rows_listed(site.get_model_admin(Request), user, export.query)  # type: ignore[arg-type]  # ours
    except Refused as refusal:
        raise exports.Hopeless(refusal.detail) from refusal
