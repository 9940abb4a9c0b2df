"""The page *Workers and queues*: which processes live, what waits for them, whether the clock is on time, and room.

What processes say of themselves and the clock's lines come with the page and renew themselves; what is asked of the
broker and of the database's engine comes after it, each with a deadline, so that a broken broker holds up no page.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from django_celery_beat.models import PeriodicTask

from batching.admin import broker_looks, database_looks, shown
from batching.admin.charts import PERMISSIONS
from batching.models import Beat, Pulse
from batching.models.operations import SILENT_AFTER
from batching.templatetags.badges import BAD, GOOD, QUIET, WARNING
from delivery.models import IntakeStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse

_LATE_AT_LEAST: Final = timedelta(seconds=15)
_LATE_PERIODS: Final = 3
_BUSY_PERIODS: Final = 20
_PROCESSES_SHOWN: Final = 200


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process as the page shows it."""

    beat: Beat
    word: str
    tone: str
    icon: str

    @property
    def memory(self) -> str:
        """Resident memory."""
        return shown.size(self.beat.memory_bytes)


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One line of the clock's table, and how it keeps to it."""

    line: PeriodicTask
    every: str
    began_at: datetime | None
    lag: str
    """How long after its time it is; empty when it is on time."""
    word: str
    tone: str
    icon: str

    @property
    def name(self) -> str:
        """Its name, without the mark of ours."""
        return str(self.line.name).removeprefix("batcher: ")


def processes(now: datetime) -> list[Process]:
    """Return the processes, those that were lost first. Two queries."""
    lost = set(Beat.objects.lost(now).values_list("pk", flat=True)[:_PROCESSES_SHOWN])
    silent = now - SILENT_AFTER
    beats = Beat.objects.order_by("kind", "host", "pid")[:_PROCESSES_SHOWN]
    shown_ = [beat for beat in beats if beat.seen_at >= silent or beat.pk in lost]
    made = [
        Process(beat=beat, word="lost", tone=BAD, icon="heart_broken")
        if beat.pk in lost
        else Process(beat=beat, word="alive", tone=GOOD, icon="favorite")
        for beat in shown_
    ]
    return sorted(made, key=lambda process: process.tone != BAD)


def ticks(now: datetime) -> list[Tick]:
    """Return the clock's lines with when each was taken up last, the latest ones first. Two queries."""
    began = dict(Pulse.objects.values_list("name", "began_at"))
    lines = PeriodicTask.objects.select_related("interval").order_by("name")
    ours = [line for line in lines if line.interval is not None]
    found = [_tick(line, began.get(line.task.rsplit(".", 1)[-1]), now) for line in ours]
    order = {BAD: 0, WARNING: 1, QUIET: 2, GOOD: 3}
    return sorted(found, key=lambda tick: order[tick.tone])


def _tick(line: PeriodicTask, began_at: datetime | None, now: datetime) -> Tick:
    period = timedelta(**{line.interval.period: line.interval.every})
    late = now - began_at - period if began_at else timedelta(0)
    word, tone, icon = _standing(line, began_at, late, period)
    return Tick(
        line=line,
        every=shown.duration(period),
        began_at=began_at,
        lag=shown.duration(late) if tone in (WARNING, BAD) else "",
        word=word,
        tone=tone,
        icon=icon,
    )


def _standing(
    line: PeriodicTask, began_at: datetime | None, late: timedelta, period: timedelta
) -> tuple[str, str, str]:
    if not line.enabled:
        return "off", QUIET, "toggle_off"
    if began_at is None:
        return "not yet", QUIET, "schedule"
    if late > max(_LATE_AT_LEAST, _BUSY_PERIODS * period):
        return "late", BAD, "alarm"
    if late > max(_LATE_AT_LEAST, _LATE_PERIODS * period):
        return "late", WARNING, "alarm"
    return "on time", GOOD, "check_circle"


def _live(now: datetime) -> dict[str, Any]:
    room = shutil.disk_usage(settings.DATA_DIR)
    return {
        "as_of": now,
        "processes": processes(now),
        "ticks": ticks(now),
        "intakes": list(IntakeStatus.objects.order_by("queue")[:20]),
        "disk": {
            "free": shown.size(room.free),
            "total": shown.size(room.total),
            "used_percent": round(100 * (1 - room.free / room.total)),
        },
    }


def _allowed(request: HttpRequest) -> None:
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied


@require_safe
def workers_view(request: HttpRequest) -> HttpResponse:
    """Show the page; to htmx the parts that renew themselves."""
    _allowed(request)
    context = _live(timezone.now())
    if getattr(request, "htmx", False):
        return TemplateResponse(request, "batcher/admin/_workers_both.html", context)
    page = {**admin.site.each_context(request), **context, "title": "Workers and queues"}
    return TemplateResponse(request, "batcher/admin/workers.html", page)


@require_safe
def queues_view(request: HttpRequest) -> HttpResponse:
    """Show what waits in the queues."""
    brokers = [look for look in (broker_looks.work_queues(), broker_looks.input_queue()) if look]
    return _part(request, "queues", "Queues", {"brokers": brokers})


@require_safe
def database_view(request: HttpRequest) -> HttpResponse:
    """Show the database's size and health."""
    return _part(request, "database", "Database", {"database": database_looks.look()})


def _part(request: HttpRequest, name: str, title: str, found: dict[str, Any]) -> HttpResponse:
    """Answer with a part alone to htmx, with a page around it to others."""
    _allowed(request)
    context = {**found, "as_of": timezone.now(), "part": f"batcher/admin/_workers_{name}.html"}
    if getattr(request, "htmx", False):
        return TemplateResponse(request, context["part"], context)
    page = {**admin.site.each_context(request), **context, "title": title}
    return TemplateResponse(request, "batcher/admin/workers_part.html", page)


def lost_processes(now: datetime) -> Iterator[Beat]:
    """Yield what ended without a word, for the first page. One query."""
    yield from Beat.objects.lost(now).order_by("kind", "host", "pid")[:_PROCESSES_SHOWN]
