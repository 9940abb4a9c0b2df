"""Ordering a replay in the panel: its terms, then what they mean, then a reason; nothing is ordered unseen.

A destination's page and the list of requests lead here, each saying which results are meant; `delivery.replays`
counts them, shows the first few and carries the order out. What was delivered already takes a second yes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from msgspec import structs
from unfold.widgets import (
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from batching import audit
from batching.admin import shown
from batching.admin.moves import ReasonForm
from batching.admin.request_filters import Listed, which_listed
from batching.lifecycle import Actor
from batching.steering import Refused
from delivery import replays
from delivery.replays import FASTEST, SLOWEST, USUAL_PER_SECOND, Unknown, Which

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.contrib.admin import ModelAdmin
    from django.http import HttpRequest, HttpResponse

    from batching.models import Destination, Project
    from delivery.models import Replay

ORDER: Final = "batching.operate_request"
_FAILED, _ALL = "failed", "all"


class _MomentInput(UnfoldAdminTextInputWidget):  # type: ignore[misc]  # the theme carries no types
    input_type = "datetime-local"


class TermsForm(forms.Form):
    """Asks which of the results that are meant, and how fast."""

    from_ = forms.DateTimeField(
        label="From (UTC)",
        required=False,
        widget=_MomentInput(attrs={"step": 1}),
        help_text="Settled or given up then or later. Empty: from the beginning.",
    )
    to = forms.DateTimeField(
        label="To (UTC)",
        required=False,
        widget=_MomentInput(attrs={"step": 1}),
        help_text="Settled or given up before then. Empty: up to now.",
    )
    sent = forms.ChoiceField(
        label="Which",
        choices=((_FAILED, "Only what was given up"), (_ALL, "What was delivered too")),
        initial=_FAILED,
        widget=UnfoldAdminRadioSelectWidget,
    )
    per_second = forms.FloatField(
        label="Results a second",
        min_value=SLOWEST,
        max_value=FASTEST,
        initial=f"{USUAL_PER_SECOND:g}",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text=f"{SLOWEST:g} to {FASTEST:,.0f}. New results go on flowing beside it.",
    )

    def clean(self) -> dict[str, Any]:
        """Refuse a time that ends before it begins."""
        given = super().clean() or {}
        if given.get("from_") and given.get("to") and given["from_"] >= given["to"]:
            self.add_error("to", "It must be later than “From”.")
        return given


class SureForm(ReasonForm):
    """Asks why and, where receivers get again what they have, whether that is meant."""

    sure = forms.BooleanField(
        label="Yes, send again what was delivered already",
        widget=UnfoldBooleanWidget,
        help_text="Every receiver gets the same results again, under the same ids, marked x-replay: 1.",
        error_messages={"required": "Tick this too, or go back and choose only what was given up."},
    )
    field_order = ("sure", "reason")


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What the page is about before anybody chose terms."""

    which: Which
    project: Project | None
    only_failed: bool
    """The filter means nothing else: not asked for."""
    meant: str
    """Which results, in words."""
    back: str


def order_at(model_admin: ModelAdmin[Any], request: HttpRequest, row: Destination) -> HttpResponse:
    """Order a replay of one destination's results."""
    which, back = Which(destination=row.key), shown.page_of(row)
    meant = f"Results that go to {row} ({row.key})."
    order = _Order(which=which, project=row.project, only_failed=False, meant=meant, back=back)
    return _page(model_admin, request, order)


def order_listed(request: HttpRequest, request_admin: ModelAdmin[Any]) -> HttpResponse:
    """Order a replay of all that a list of requests shows; its parameters are this page's."""
    if not request.user.has_perm(ORDER):
        raise PermissionDenied
    back = f"{shown.list_of('batching.request')}?{request.GET.urlencode()}"
    try:
        listed = which_listed(request.GET.dict())
    except Refused as refusal:
        messages.error(request, f"What is listed can't be sent again as a whole: {refusal.detail}.")
        return HttpResponseRedirect(back)
    order = _Order(
        which=listed.which,
        project=listed.project,
        only_failed=listed.only_failed,
        meant=_meant(listed),
        back=back,
    )
    return _page(request_admin, request, order)


def _page(model_admin: ModelAdmin[Any], request: HttpRequest, order: _Order) -> HttpResponse:
    terms = _terms_form(request, order)
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": "Redeliver",
        "meant": order.meant,
        "terms": terms,
        "back": order.back,
    }
    if request.method == "POST" and "change" not in request.POST and terms.is_valid():
        try:
            answer = _look_or_start(request, order, terms.cleaned_data)
        except (Refused, Unknown) as problem:
            terms.add_error(None, f"{problem.detail[:1].upper()}{problem.detail[1:]}.")
        else:
            if isinstance(answer, HttpResponseRedirect):
                return answer
            context |= answer
    return TemplateResponse(request, "batcher/admin/replay_order.html", context)


def _terms_form(request: HttpRequest, order: _Order) -> TermsForm:
    first = {"sent": _ALL if order.which.state == "delivered" else _FAILED}
    terms = TermsForm(request.POST if request.method == "POST" else None, initial=first)
    if order.only_failed:
        del terms.fields["sent"]
    return terms


def _look_or_start(
    request: HttpRequest, order: _Order, given: Mapping[str, Any]
) -> HttpResponseRedirect | dict[str, Any]:
    """Return where to go once a replay was ordered, or what to show before. Raises Refused, Unknown."""
    only_failed = given.get("sent", _FAILED) == _FAILED
    which = structs.replace(order.which, from_=given["from_"], to=given["to"])
    sure = SureForm(request.POST if "confirmed" in request.POST else None)
    if only_failed:
        del sure.fields["sure"]
    terms = {"project": order.project, "only_failed": only_failed}
    if sure.is_bound and sure.is_valid():
        pace = given["per_second"]
        replay = _start(
            request, which, reason=sure.cleaned_data["reason"], per_second=pace, **terms
        )
        messages.success(request, "The replay begins within seconds.")
        return HttpResponseRedirect(shown.page_of(replay))
    look = replays.look(which, **terms)
    return {
        "look": look,
        "count": shown.number(look.matched),
        "sure": sure,
        "samples": [(row, shown.page_of(row)) for row in look.samples],
    }


def _start(request: HttpRequest, which: Which, *, reason: str, **terms: Any) -> Replay:
    by = Actor(name=request.user.get_username(), user_id=int(request.user.pk or 0))
    with transaction.atomic():
        row = replays.start(which, by=by, reason=reason, now=timezone.now(), **terms)
        audit.record("replay.start", by=by, row=row, reason=reason, after=replays.facts_of(row))
    return row


def _meant(listed: Listed) -> str:
    whose = f"project {listed.project}" if listed.project else "every project"
    given_up = ", given up" if listed.only_failed else ""
    return f"Results of {whose}: {listed.which}{given_up}."
