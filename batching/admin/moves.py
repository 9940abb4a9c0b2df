"""What a person may do to rows: asked for on a page of its own, done one row at a time, and reported.

A ``Move`` names a function of the core. ``MovesAdmin`` offers each as an action on a list's selection and
as a button on a row's page; both lead to the same confirmation, which shows how many rows are meant, some
of them, what will happen, and asks for a reason. Nothing happens on GET. The function decides in its own
transaction whether the row may move; a refusal is counted and told, and never stops the other rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from batching import audit
from batching.admin import shown
from batching.admin.audit import note
from batching.admin.rows import OurAdmin, Row
from batching.lifecycle import Actor, Stale, TransitionNotAllowed, arrow
from batching.steering import Refused

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse

MOST_ROWS = 1_000
"""Rows that one confirmation may cover: more would outlast a web request."""
SAMPLES = 5


class ReasonForm(forms.Form):
    """Asks why, for the log."""

    reason = forms.CharField(
        max_length=200,
        label="Reason",
        help_text="Kept in the history, for those who look at it later.",
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True}),
    )


@dataclass(frozen=True, kw_only=True)
class Move:
    """One thing that a person may do to a row."""

    name: str
    """Part of the URL and name of the action."""
    label: str
    """Verb for buttons and lists."""
    effect: str
    """What will happen, in one or two sentences, for the confirmation."""
    permission: str
    """``app.codename`` that is needed."""
    act: Callable[..., Any]
    """Called with ``(row, by=, reason=, now=)`` and the further fields of ``form``; raises Refused when the
    row may not move, and may return a sentence for whoever did it."""
    states: frozenset[str] | None = None
    """States in which a row's page offers it; None: always. The function has the last word."""
    icon: str = "play_arrow"
    is_dangerous: bool = False
    asks_reason: bool = True
    form: type[ReasonForm] | None = None
    """Asks for more than a reason."""
    is_for_one: bool = False
    """Offered on a row's page only: what it answers can't be told of many."""
    page: Callable[..., HttpResponse] | None = None
    """Called with ``(admin, request, row)`` instead of the confirmation and ``act``: asks for itself, does it itself."""
    act_on_many: Callable[..., int] | None = None
    """Does to a set what ``act`` does to a row: called inside a transaction with ``(ids, by=, reason=, now=)`` and the
    further fields of ``form``, returns how many were done."""
    wide_page: str = ""
    """Name of the page that orders it for everything that a list shows, when not the runs' own; gets the list's query."""
    calls_outside: bool = False
    """It asks a provider, so no transaction may be open around it."""


@dataclass(kw_only=True)
class Report:
    """What came of a move over some rows."""

    done: list[str] = field(default_factory=list)
    """Names of the rows that moved."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why rows did not move, and how many for each reason."""
    told: list[str] = field(default_factory=list)
    """What moves had to say, a sentence each."""

    def __str__(self) -> str:
        parts = [f"{len(self.done):,} done"]
        parts += [f"{count:,} skipped: {why}" for why, count in self.skipped.most_common()]
        return ". ".join([", ".join(parts), *self.told[:SAMPLES]])


def sources_of(model: type[Model], *names: str) -> frozenset[str]:
    """Return the states from which any of these transitions of ``model`` leads."""
    return frozenset(state for name in names for state in arrow(model, name).sources)


def carry_out(
    move: Move,
    rows: Iterable[Model],
    *,
    user: User | AnonymousUser,
    reason: str,
    answers: Mapping[str, Any] | None = None,
) -> Report:
    """Do ``move`` to each of ``rows``, each in the transaction of its own that ``act`` opens.

    ``answers`` is what the move's own form asked for beside the reason.
    """
    report, user_id = Report(), int(user.pk or 0)
    act = partial(move.act, **(answers or {}))
    by = Actor(name=user.get_username(), user_id=user_id)
    for row in rows:
        pk, name = row.pk, str(row)
        action = f"{row._meta.model_name}.{move.name}"
        try:
            said = audit.done(act, row, action=action, calls_outside=move.calls_outside, by=by,
                              reason=reason, now=timezone.now())  # fmt: skip
        except Refused as refusal:
            report.skipped[refusal.detail] += 1
        except (Stale, TransitionNotAllowed):
            report.skipped["someone else was first"] += 1
        else:
            report.done.append(name)
            report.told += [said] if isinstance(said, str) else []
            text = f"{move.label}: {reason}" if reason else move.label
            note(type(row), pk, name, text, user_id=user_id)
    return report


class MovesAdmin(OurAdmin[Row], Generic[Row]):
    """An admin whose rows can be moved by those who may."""

    moves: tuple[Move, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for move in self.moves:
            setattr(self, _button_name(move), self._button(move))
        self.actions_detail = tuple(_button_name(move) for move in self.moves)
        super().__init__(*args, **kwargs)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the moves that this user may make, and nothing of Django's own."""
        return {
            move.name: (self._choice(move), move.name, move.label)
            for move in self.moves
            if request.user.has_perm(move.permission) and not move.is_for_one
        }

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer the buttons that this user may press and that fit the row's state."""
        buttons: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]  # the theme's
        allowed = [move for move in self.moves if request.user.has_perm(move.permission)]
        if any(move.states is not None for move in allowed):
            state = getattr(self.row_at(request, str(object_id)), "state", "")
            allowed = [move for move in allowed if move.states is None or state in move.states]
        offered = {_button_name(move) for move in allowed}
        return [button for button in buttons if button.method.__name__ in offered]

    def _button(self, move: Move) -> Callable[..., HttpResponse]:
        """Make the view behind a button; the theme reads its look from the attributes.

        Not ``allowed_permissions``: the theme would look those up in the database on every start.
        """

        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            return self._move_one(request, move, object_id)

        view.__name__ = _button_name(move)
        for attribute, value in {
            "short_description": move.label,
            "url_path": move.name.replace("_", "-"),
            "icon": move.icon,
            "variant": ActionVariant.DANGER if move.is_dangerous else ActionVariant.DEFAULT,
            "attrs": {},
        }.items():
            setattr(view, attribute, value)
        return view

    def _choice(self, move: Move) -> Callable[..., HttpResponse | None]:
        """Make the action behind a choice of a list's menu."""

        def act(_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
            return self._move_selected(request, move, rows)

        return act

    def _move_one(self, request: HttpRequest, move: Move, object_id: str) -> HttpResponse:
        """Confirm and move the row of one page."""
        _demand(request, move)
        row = self.row_at(request, object_id)
        if row is None:
            raise Http404(f"no {self.opts.verbose_name} {unquote(object_id)}")
        if move.page is not None:
            return move.page(self, request, row)
        pk = row.pk
        if reason := self._confirmed_reason(request, move):
            self._tell(request, _carried(request, move, [row], reason))
            if (page := self.page_after(request, move, row)) is not None:
                return page
            is_gone = not self.model._base_manager.filter(pk=pk).exists()
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
            return HttpResponseRedirect(
                reverse(f"{name}_changelist") if is_gone else reverse(f"{name}_change", args=[pk])
            )
        return self._confirmation(request, move, [row], is_selection=False)

    def page_after(self, request: HttpRequest, move: Move, row: Row) -> HttpResponse | None:
        """Return what is shown after a row was moved; None: its own page."""
        return None

    def _move_selected(
        self, request: HttpRequest, move: Move, rows: QuerySet[Any]
    ) -> HttpResponse | None:
        """Confirm and move the rows ticked in a list; None sends the browser back to the list."""
        _demand(request, move)
        chosen = list(rows.order_by("pk")[: MOST_ROWS + 1])
        if len(chosen) > MOST_ROWS:
            messages.error(request, f"Nothing was done: choose at most {MOST_ROWS:,} rows at once.")
            return None
        if reason := self._confirmed_reason(request, move):
            self._tell(request, _carried(request, move, chosen, reason))
            return None
        return self._confirmation(request, move, chosen, is_selection=True)

    def _confirmed_reason(self, request: HttpRequest, move: Move) -> Confirmed | None:
        if request.method != "POST" or "confirmed" not in request.POST:
            return None
        if not move.asks_reason:
            return Confirmed(text="")
        form = (move.form or ReasonForm)(request.POST)
        if not form.is_valid():
            return None
        answers = {**form.cleaned_data}
        return Confirmed(text=answers.pop("reason"), answers=answers)

    def _tell(self, request: HttpRequest, report: Report) -> None:
        level = messages.SUCCESS if not report.skipped else messages.WARNING
        messages.add_message(request, level, f"{str(report)[:1_000]}.")

    def _confirmation(
        self, request: HttpRequest, move: Move, rows: Sequence[Any], *, is_selection: bool
    ) -> TemplateResponse:
        was_sent = "confirmed" in request.POST
        form = move.form or ReasonForm
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": move.label,
            "move": move,
            "count": len(rows),
            "samples": [(row, shown.page_of(row)) for row in rows[:SAMPLES]],
            "more": max(0, len(rows) - SAMPLES),
            "form": form(request.POST if was_sent else None) if move.asks_reason else None,
            "chosen": [row.pk for row in rows] if is_selection else [],
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "back": request.get_full_path() if is_selection else shown.page_of(rows[0]),
        }
        return TemplateResponse(request, "batcher/admin/move_confirm.html", context)


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """That someone confirmed, and why; true even when no reason was asked for."""

    text: str
    """The reason, empty when none was asked for."""
    answers: dict[str, Any] = field(default_factory=dict)
    """What else the form asked for."""


def _carried(
    request: HttpRequest, move: Move, rows: Iterable[Model], confirmed: Confirmed
) -> Report:
    answers = confirmed.answers
    return carry_out(move, rows, user=request.user, reason=confirmed.text, answers=answers)


def _button_name(move: Move) -> str:
    return f"{move.name}_one"


def _demand(request: HttpRequest, move: Move) -> None:
    if not request.user.has_perm(move.permission):
        raise PermissionDenied
