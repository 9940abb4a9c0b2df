"""The line of a lane: who waits in which order, and one move at a time by mouse, keys or plain buttons.

A move is one of ``queueing``'s, carried out and logged like everywhere; dragging is *move before* with another face.
Whoever moves says which order was on the screen. When that is no longer the order, because someone else moved
meanwhile, nothing is done and the line is shown as it is by now. Batches that left or came in between do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render

from batching import order
from batching.admin import shown
from batching.admin.moves import MovesAdmin, carry_out
from batching.models import Batch, Lane

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

OPERATE: Final = "batching.operate_batch"
LINE_SHOWN: Final = 100
PART: Final = "lane_line"
_NO_REASON: Final = "moved on the page of its lane"
_CHANGED: Final = (
    "Someone changed the order meanwhile, so nothing was moved. This is the line as it is now."
)


class StepForm(forms.Form):
    """One move: which batch, where to, and the order that was on the screen."""

    batch = forms.IntegerField(min_value=1)
    to = forms.ChoiceField(choices=[(w, w) for w in ("top", "up", "down", "bottom", "before")])
    before = forms.IntegerField(min_value=1, required=False)
    """Of ``before``: the batch that it goes in front of; none: behind all that are shown."""
    seen = forms.RegexField(r"^[0-9]+(,[0-9]+)*$", max_length=2_000)
    reason = forms.CharField(max_length=200, required=False)


class Moved(Exception):
    """The order on the screen is not the order of the line."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One batch of the line as it is shown."""

    place: int
    batch: Batch
    url: str


def line_of(lane: Lane) -> list[Waiting]:
    """Return the first of those that wait, who goes first in front. One query."""
    rows = order.line_of(lane).defer("provider_object", "last_error")[:LINE_SHOWN]
    return [
        Waiting(place=place, batch=batch, url=shown.page_of(batch))
        for place, batch in enumerate(rows, start=1)
    ]


def line_context(request: HttpRequest, lane: Lane, waiting: int) -> dict[str, Any]:
    """Return what the line's part of the page shows; ``waiting`` is how many there are in all."""
    line = line_of(lane)
    return {
        "lane": lane,
        "line": line,
        "seen": ",".join(str(one.batch.pk) for one in line),
        "more": max(0, waiting - len(line)),
        "waiting": waiting,
        "may_move": request.user.has_perm(OPERATE),
    }


def move_in_line(request: HttpRequest, lane_id: int) -> HttpResponse:
    """Carry out one move and show the line as it is then. Raises PermissionDenied and Http404."""
    if not request.user.has_perm(OPERATE):
        raise PermissionDenied
    lane = Lane.objects.select_related("account").filter(pk=lane_id).first()
    if lane is None:
        raise Http404("no such lane")
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    form = StepForm(_pressed(request))
    said, is_done = "That is no move.", False
    if form.is_valid():
        said, is_done = _carried(request, lane, form.cleaned_data)
    if request.headers.get("HX-Target") != PART:
        messages.add_message(request, messages.SUCCESS if is_done else messages.WARNING, said)
        return HttpResponseRedirect(f"{shown.page_of(lane)}#{PART}")
    context = line_context(request, lane, order.line_of(lane).count())
    context |= {"said": said, "is_done": is_done}
    return render(request, f"batcher/admin/_{PART}.html", context)


def _pressed(request: HttpRequest) -> dict[str, Any]:
    """Return the form's values; a plain button says place and batch in one, as ``up:12``."""
    given = request.POST.dict()
    to, _, batch = given.pop("do", "").partition(":")
    return {**given, "to": to, "batch": batch} if batch else given


def _carried(request: HttpRequest, lane: Lane, asked: dict[str, Any]) -> tuple[str, bool]:
    """Do what was asked for and say what came of it, and whether it was done."""
    try:
        with transaction.atomic():
            Lane.objects.select_for_update(no_key=True).get(pk=lane.pk)
            now_there = list(order.line_of(lane).values_list("pk", flat=True))
            _demand_same(asked, now_there)
            name, other = _destined(asked, now_there)
            if not name:
                return "It is there already.", False
            report = _move(request, name, asked, other)
    except Moved:
        return _CHANGED, False
    if not report.done:
        return f"Nothing was moved: {', '.join(report.skipped)}.", False
    place = order.place_of(Batch.objects.get(pk=asked["batch"]))
    where = f"has {place}" if place else "no longer waits"
    return f"Batch #{asked['batch']} {where}.", True


def _demand_same(asked: dict[str, Any], now_there: Sequence[int]) -> None:
    """Raise Moved unless those that were seen and are still there stand in the same order."""
    seen = [int(pk) for pk in asked["seen"].split(",")]
    present, known = set(now_there), set(seen)
    left = [pk for pk in seen if pk in present]
    if left != [pk for pk in now_there if pk in known] or asked["batch"] not in present:
        raise Moved
    if asked["before"] and asked["before"] not in present:
        raise Moved


def _destined(asked: dict[str, Any], line: Sequence[int]) -> tuple[str, int | None]:
    """Return the move that leads there, and the batch that it needs; an empty name: it stands there."""
    batch, to = asked["batch"], asked["to"]
    others = [pk for pk in line if pk != batch]
    place = line.index(batch)
    target = {
        "top": 0,
        "up": place - 1,
        "down": place + 1,
        "bottom": len(others),
        "before": _behind_shown(asked, others),
    }[to]
    if asked["before"] and to == "before":
        target = others.index(asked["before"]) if asked["before"] in others else place
    target = max(0, min(target, len(others)))
    if target == place:
        return "", None
    if target == 0:
        return "move_top", None
    return ("move_bottom", None) if target == len(others) else ("move_before", others[target])


def _behind_shown(asked: dict[str, Any], others: Sequence[int]) -> int:
    """Return the place right behind the last that was on the screen."""
    seen = {int(pk) for pk in asked["seen"].split(",")}
    return max((place for place, pk in enumerate(others) if pk in seen), default=-1) + 1


def _move(request: HttpRequest, name: str, asked: dict[str, Any], other: int | None) -> Any:
    batches = admin.site.get_model_admin(Batch)
    assert isinstance(batches, MovesAdmin)  # noqa: S101  # for the type checker
    move = next(one for one in batches.moves if one.name == name)
    rows = Batch.objects.in_bulk([asked["batch"], *([other] if other else [])])
    answers = {"other": rows[other]} if other else {}
    reason = asked["reason"].strip() or _NO_REASON
    return carry_out(
        move, [rows[asked["batch"]]], user=request.user, reason=reason, answers=answers
    )
