"""The transition log: a row's own history on its page, and the whole log, read-only.

Decides how many steps a page shows. The log's only index serves "the moves of one row, in order".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q
from django.utils.html import format_html
from django_fsm_log.models import StateLog

from batching.admin import searching, shown
from batching.admin.keyset import KeysetRows
from batching.admin.rows import MachineRows
from batching.models import Batch, Request
from batching.templatetags.badges import state_badge

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

STEPS_SHOWN = 100
_SIGNED = re.compile(r"(?P<why>.*) \[by (?P<who>[^\]]*)\]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One move of a row, as its page shows it."""

    at: datetime
    after: str
    """Time since the move before; empty for the first."""
    source: str
    """State it left; empty when the row was born."""
    target: str
    transition: str
    who: str
    why: str

    @property
    def is_deed(self) -> bool:
        """True when something was done to it that left it in its state, such as a pause."""
        return self.source == self.target


@dataclass(frozen=True, kw_only=True)
class History:
    """The newest moves of a row, oldest first."""

    steps: list[Step]
    is_cut: bool
    """True when there are older ones."""


def history_of(row: Model) -> History:
    """Return the last STEPS_SHOWN moves of ``row``; two queries at most."""
    kind = ContentType.objects.get_for_model(type(row))
    newest = StateLog.objects.filter(content_type=kind, object_id=row.pk).select_related("by")
    logs = list(newest.order_by("-id")[: STEPS_SHOWN + 1])
    is_cut = len(logs) > STEPS_SHOWN
    logs = logs[:STEPS_SHOWN][::-1]
    before = [None, *(log.timestamp for log in logs)]
    steps = [_step(log, earlier) for log, earlier in zip(logs, before, strict=False)]
    return History(steps=steps, is_cut=is_cut)


def _step(log: StateLog, earlier: datetime | None) -> Step:
    who, why = author_and_reason(log)
    gap: timedelta | None = log.timestamp - earlier if earlier else None
    return Step(
        at=log.timestamp,
        after=shown.duration(gap) if gap is not None else "",
        source=log.source_state or "",
        target=log.state,
        transition=log.transition,
        who=who,
        why=why,
    )


def author_and_reason(log: StateLog) -> tuple[str, str]:
    """Return who caused a move and why: ``lifecycle.log_text`` read back."""
    text = log.description or ""
    if log.by_id:
        return log.by.get_username(), text
    signed = _SIGNED.fullmatch(text)
    return (signed["who"], signed["why"]) if signed else ("", text)


@admin.register(StateLog)
class StateLogAdmin(KeysetRows[StateLog], MachineRows[StateLog]):
    """Every move of every batch and request, newest first."""

    list_display = ("timestamp", "moved", "arrow", "who", "why")
    list_display_links = ("timestamp",)
    list_select_related = ("by",)
    list_filter = ()
    search_fields = ("object_id",)
    search_help_text = "Key of a batch or request (bat_… or req_…)"
    fields = ("timestamp", "moved", "arrow", "transition", "who", "why")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find the moves of the row with this key."""
        term = search_term.strip()
        if not term:
            return queryset, False
        for prefix, model in (("bat", Batch), ("req", Request)):
            named = searching.key_is(term, prefix)
            if named is None:
                continue
            rows: QuerySet[Any] = model._base_manager.filter(named)
            kind = ContentType.objects.get_for_model(model)
            found = list(rows.values_list("pk", flat=True)[:STEPS_SHOWN])
            return queryset.filter(content_type=kind, object_id__in=found), False
        return queryset.filter(Q(pk__in=[])), False

    @admin.display(description="Row")
    def moved(self, log: StateLog) -> SafeString | str:
        """Link to the row that moved, without fetching it."""
        kind = ContentType.objects.get_for_id(log.content_type_id)
        text = f"{kind.model} {log.object_id}"
        if kind.model_class() not in (Batch, Request):
            return text
        return shown.link(shown.page_at(f"{kind.app_label}.{kind.model}", log.object_id), text)

    @admin.display(description="Move")
    def arrow(self, log: StateLog) -> SafeString:
        """From where to where."""
        if log.source_state == log.state:
            return format_html("{} {}", state_badge(log.state), log.transition)
        return shown.between(
            state_badge(log.source_state) if log.source_state else "new", state_badge(log.state)
        )

    @admin.display(description="Who")
    def who(self, log: StateLog) -> str:
        """User, key or phase."""
        return author_and_reason(log)[0] or shown.NOTHING

    @admin.display(description="Why")
    def why(self, log: StateLog) -> str:
        """The reason that was given."""
        return shown.cut(author_and_reason(log)[1], 300) or shown.NOTHING
