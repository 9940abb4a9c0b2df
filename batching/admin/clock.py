"""The clock's table, in the theme's look: what runs when, switched on and off, and run at once.

Times and queues of our own rows come from ``batcher/schedule.py`` and are written again on each migrate;
only ``enabled`` is left as an operator set it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app
from django.contrib import admin
from django_celery_beat.admin import PeriodicTaskForm, TaskSelectWidget
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from batching.admin import shown
from batching.admin.moves import Move, MovesAdmin
from batching.admin.rows import ModelAdmin, OurAdmin
from batching.steering import Refused
from batching.templatetags.badges import GOOD, QUIET, badge

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from batching.lifecycle import Actor

for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(model)

CHANGE = "django_celery_beat.change_periodictask"


def switch_on(line: PeriodicTask, *, by: Actor, reason: str, now: datetime) -> None:
    """Let the clock ring it again; saving also tells the running clock. Raises Refused when it is on."""
    if line.enabled:
        raise Refused("invalid_state", "already on")
    line.enabled = True
    line.save()


def switch_off(line: PeriodicTask, *, by: Actor, reason: str, now: datetime) -> None:
    """Keep the clock from ringing it; raises Refused when it is off."""
    if not line.enabled:
        raise Refused("invalid_state", "already off")
    line.enabled = False
    line.save()


def ring_now(line: PeriodicTask, *, by: Actor, reason: str, now: datetime) -> None:
    """Put one tick on its queue; raises Refused when no worker knows the task or the broker is away."""
    current_app.loader.import_default_modules()
    task = current_app.tasks.get(line.task)
    if task is None:
        raise Refused("invalid_state", f"no task is named {line.task}")
    try:
        where = {"queue": line.queue} if line.queue else {}
        task.apply_async(expires=line.expire_seconds, retry=False, **where)
    except task.OperationalError as problem:
        raise Refused("invalid_state", f"the broker does not answer: {problem}") from problem


MOVES = (
    Move(
        name="switch_on",
        label="Switch on",
        effect="The clock rings it again, from its next tick on.",
        permission=CHANGE,
        act=switch_on,
        icon="toggle_on",
    ),
    Move(
        name="switch_off",
        label="Switch off",
        effect="The clock rings it no more; the description says what stops without it.",
        permission=CHANGE,
        act=switch_off,
        icon="toggle_off",
        is_dangerous=True,
    ),
    Move(
        name="ring",
        label="Run now",
        effect="One tick is put on its queue at once. Every task here is safe to run twice.",
        permission=CHANGE,
        act=ring_now,
        icon="bolt",
        asks_reason=False,
    ),
)


class _ThemedTaskSelect(UnfoldAdminSelectWidget, TaskSelectWidget):  # type: ignore[misc]  # untyped
    """Registered tasks, in the theme's look."""


class ClockLineForm(PeriodicTaskForm):  # type: ignore[misc]  # untyped
    """The clock's own form, in the theme's look."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" in self.fields:
            self.fields["task"].widget = UnfoldAdminTextInputWidget()
            self.fields["regtask"].widget = _ThemedTaskSelect()


@admin.register(PeriodicTask)
class ClockLineAdmin(MovesAdmin[PeriodicTask], OurAdmin[PeriodicTask]):
    """What the clock rings, and when it last did."""

    form = ClockLineForm
    moves = MOVES
    list_display = ("name", "badge", "scheduler", "queue", "last_rung", "total_run_count")
    list_select_related = ("interval", "crontab", "solar", "clocked")
    list_filter = ("enabled",)
    search_fields = ("name", "task")
    ordering = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "regtask", "task", "enabled", "description")}),
        ("Schedule", {"fields": (
            "interval", "crontab", "solar", "clocked", "start_time", "last_run_at", "one_off",
        )}),
        ("Arguments", {"classes": ("collapse",), "fields": ("args", "kwargs")}),
        ("Execution", {"classes": ("collapse",), "fields": (
            "expires", "expire_seconds", "queue", "exchange", "routing_key", "priority", "headers",
        )}),
    )  # fmt: skip
    readonly_fields = ("last_run_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        """Fetch the kinds of schedule along."""
        return (
            super().get_queryset(request).select_related("interval", "crontab", "solar", "clocked")
        )

    @admin.display(description="Now")
    def badge(self, line: PeriodicTask) -> SafeString:
        """On or off."""
        if line.enabled:
            return badge("on", tone=GOOD, icon="toggle_on")
        return badge("off", tone=QUIET, icon="toggle_off")

    @admin.display(description="Last rung")
    def last_rung(self, line: PeriodicTask) -> SafeString | str:
        """How long ago."""
        return shown.age(line.last_run_at) if line.last_run_at else "never"


@admin.register(IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule)
class ScheduleAdmin(ModelAdmin[Any]):
    """Times that lines of the clock's table may use."""

    list_display = ("__str__",)
