"""What needs a person, worst first: what happened, what we do next and when, and what he can do.

The overview shows these. Each kind is one line, however many rows it counts, and opens the list of exactly
those rows. Every question goes along an index or over a table of few rows, and counts up to a cap.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import Max, Q
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from batching.admin import shown, standings
from batching.admin.request_filters import given_up_because
from batching.admin.rows import MOST_COUNTED, count_up_to
from batching.lifecycle import BatchState
from batching.models import Account, Batch, Beat, Destination, Flag, Lane, Pulse
from batching.templatetags.badges import BAD, WARNING
from delivery import standing
from delivery.models import IntakeStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django.db.models import Model, QuerySet

NAMED = 3
"""Rows that a line names; the others it counts."""
CAUSES_SHOWN = 5
CLOCK_IS_LATE_AFTER = timedelta(minutes=5)
_PERIODS_LATE = 3
_SILENT_AFTER = timedelta(minutes=2)
_GB = 10**9
_DISK_IS_LOW, _DISK_IS_LOW_SHARE, _DISK_IS_FULL = 20 * _GB, 0.1, _GB


@dataclass(frozen=True, kw_only=True)
class Concern:
    """One thing that needs a person."""

    happened: str
    next_step: str
    """What we do about it, and when."""
    remedy: str
    """What a person can do."""
    url: str
    """The list that it counts."""
    tone: str = BAD


def concerns(now: datetime, *, is_new: bool) -> list[Concern]:
    """Return what needs a person; empty when nothing does. ``is_new``: no request has come yet."""
    found = [
        *(() if is_new else _clock(now)), *_disk(), *_intake(now), *_accounts(now), *_open_circuits(now), *_stopped_destinations(now), *_dead_letters(),
        *_batches(now), *_held_back(now), *_switches(),
    ]  # fmt: skip
    return sorted(found, key=lambda concern: concern.tone != BAD)


def capped(count: int) -> str:
    """Return a figure as it was counted: ``10,000+`` past the cap."""
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"


@dataclass(frozen=True, kw_only=True)
class _Some:
    """Rows that share a trouble, as a line says them."""

    count: int
    first: list[Any]
    names: str
    """``lane x``, or ``3 lanes (x, y, z)``."""
    url: str

    def told(self, one: str, many: str) -> str:
        return f"{self.names} {one if self.count == 1 else many}"

    def why(self, attribute: str, join: str = ": ") -> str:
        """Return the reason, as the end of a sentence; of many rows none, for each has its own."""
        if self.count > 1:
            return ""
        reason = shown.cut_short(getattr(self.first[0], attribute), 160)
        return f"{join}{reason}" if reason else ""


def _some(
    rows: QuerySet[Any], noun: str, *, many: str = "", url: str, most: int = MOST_COUNTED
) -> Iterator[_Some]:
    """Count rows and name the first; yields nothing when there are none. One query, or two."""
    first = list(rows.order_by("pk")[: NAMED + 1])
    if not first:
        return
    count = len(first) if len(first) <= NAMED else count_up_to(rows, most + 1)
    names = ", ".join(_name(row) for row in first[:NAMED])
    more = ", …" if count > NAMED else ""
    told = (
        f"{noun} {names}" if count == 1 else f"{capped(count)} {many or noun + 's'} ({names}{more})"
    )
    yield _Some(count=count, first=first, names=told[0].upper() + told[1:], url=url)


def _name(row: Model) -> str:
    return f"#{row.pk}" if isinstance(row, Batch) else shown.cut_short(str(row), 60)


def _list(model: type[Model], name: str) -> str:
    return shown.list_of(model._meta.label_lower, standing=name)


def _clock(now: datetime) -> Iterator[Concern]:
    """Look whether the clock ticks and workers take up what it rings. Two queries."""
    lines = list(
        PeriodicTask.objects.filter(
            Q(task__startswith="batching.tasks.") | Q(task__startswith="delivery.tasks.")
        ).select_related("interval")
    )
    began = dict(Pulse.objects.values_list("name", "began_at"))
    url = reverse("admin:django_celery_beat_periodictask_changelist")
    if off := [line.name for line in lines if not line.enabled]:
        yield Concern(
            happened=f"The clock's {'line' if len(off) == 1 else 'lines'} {_and_more(off)} "
            f"{'is' if len(off) == 1 else 'are'} switched off.",
            next_step="What it does is not done until it is on again.",
            remedy="Switch it on.",
            url=f"{url}?enabled__exact=0",
            tone=WARNING,
        )
    newest = max(began.values(), default=None)
    if newest is None or now - newest > CLOCK_IS_LATE_AFTER:
        yield _standstill(newest, now, url)
        return
    if late := [line for line in lines if line.enabled and _is_late(line, began, now)]:
        yield Concern(
            happened=f"No worker has taken up {_and_more([line.name for line in late])} for a while "
            f"({_and_more(sorted({line.queue or 'the default queue' for line in late}))}).",
            next_step="The clock rings on; other work goes on.",
            remedy="Look whether a worker serves that queue, and whether it is busy with something long.",
            url=url,
        )


def _is_late(line: PeriodicTask, began: dict[str, datetime], now: datetime) -> bool:
    """Tell whether a line's last beginning is several of its periods ago; one that never began is new."""
    last = began.get(line.task.rsplit(".", 1)[-1])
    if last is None or line.interval is None:
        return False
    period = timedelta(**{line.interval.period: line.interval.every})
    return now - last > max(CLOCK_IS_LATE_AFTER, _PERIODS_LATE * period)


def _standstill(newest: datetime | None, now: datetime, url: str) -> Concern:
    """Say that nothing begins, and whether the clock rang since: then workers are missing."""
    rung = PeriodicTask.objects.aggregate(last=Max("last_run_at"))["last"]
    ago = f"for {shown.duration(now - newest)}" if newest else "yet"
    if newest and rung and rung - newest > timedelta(seconds=30):
        happened = f"No worker has made progress {ago}, though the clock rings."
        remedy = "Look whether the workers run and reach the broker."
    else:
        happened = f"The clock has not ticked {ago}."
        remedy = "Look whether clock and worker run, and reach the broker."
    return Concern(
        happened=happened,
        next_step="Nothing moves meanwhile and nothing is lost; all of it goes on by itself afterwards.",
        remedy=remedy,
        url=url,
    )


def _processes(now: datetime) -> Iterator[Concern]:
    """Tell of processes that ended without a word and were not followed by others. One query, or two."""
    lost = Beat.objects.lost(now)
    for some in _some(lost, "process", many="processes", url=reverse("workers")):
        yield Concern(
            happened=f"{some.told('gives', 'give')} no sign of life any more.",
            next_step="What they had begun is taken up by others when its leases end; after a day they are forgotten.",
            remedy="Start them again, or look why they ended.",
            url=some.url,
            tone=WARNING,
        )


def _disk() -> Iterator[Concern]:
    """Look how much room this host has where files on their way are kept."""
    room = shutil.disk_usage(settings.DATA_DIR)
    is_low = room.free < _DISK_IS_LOW and room.free < room.total * _DISK_IS_LOW_SHARE
    if is_low or room.free < _DISK_IS_FULL:
        yield Concern(
            happened=f"The disk of DATA_DIR is nearly full: {shown.size(room.free)} of "
            f"{shown.size(room.total)} are free.",
            next_step="When it is full, uploads and downloads fail and are tried again; with SQLite nothing is "
            "accepted any more.",
            remedy="Make room, or give it a larger disk. Clients' files are listed with their sizes.",
            url=shown.list_of("batching.clientfile"),
            tone=BAD if room.free < _DISK_IS_FULL else WARNING,
        )


def _intake(now: datetime) -> Iterator[Concern]:
    """Look whether messages of the input queues are taken."""
    well = (IntakeStatus.State.CONSUMING, IntakeStatus.State.PAUSED)
    ill = IntakeStatus.objects.filter(~Q(state__in=well) | Q(seen_at__lt=now - _SILENT_AFTER))
    url = shown.list_of("delivery.intakestatus")
    for some in _some(ill, "input queue", url=url):
        yield Concern(
            happened=f"{some.names}: nothing is taken{some.why('detail')}.",
            next_step="Messages wait at the broker. The consumer, if it runs, tries again by itself.",
            remedy="Look whether the consumer runs, the broker answers and the queue is there.",
            url=url,
        )


def _accounts(now: datetime) -> Iterator[Concern]:
    rows = Account.objects.all()
    failing = standings.failing_accounts(rows, now)
    for some in _some(failing, "account", url=_list(Account, standings.FAILING)):
        yield Concern(
            happened=f"{some.told('fails', 'fail')}{some.why('last_error')}",
            next_step="Batches wait and are tried again, less and less often; the first success clears this.",
            remedy="Check its key, base URL and funds, then “Check connection” on its page.",
            url=some.url,
        )
    silent = standings.silent_accounts(rows, now)
    for some in _some(silent, "account", url=_list(Account, standings.SILENT)):
        moment = some.first[0].silent_since
        since = f" since {moment:%Y-%m-%d %H:%M} UTC" if some.count == 1 else ""
        yield Concern(
            happened=f"{some.told('answers', 'answer')} no question about batches{since}.",
            next_step="No batch there changes meanwhile; all are looked at as soon as it answers again.",
            remedy="Look at the provider's status page, and at the network from here.",
            url=some.url,
        )


def _open_circuits(now: datetime) -> Iterator[Concern]:
    rows = Destination.objects.select_related("health")
    broken = standings.broken_destinations(rows, now)
    for some in _some(broken, "destination", url=_list(Destination, standings.BROKEN)):
        health = some.first[0].health
        yield Concern(
            happened=f"{some.told('takes nothing: its circuit is', 'take nothing: their circuits are')} open: "
            f"{health.last_failure or 'too much failed'}",
            next_step=f"Results are held; one try decides, {_at(some, health.open_until)}.",
            remedy="Mend the receiver and ping it from its page.",
            url=some.url,
        )


def _at(some: _Some, moment: datetime) -> str:
    """Say when: of one row exactly, of many that each has its time."""
    return f"at {moment:%H:%M:%S} UTC" if some.count == 1 else "at each in its own time"


def _stopped_destinations(now: datetime) -> Iterator[Concern]:
    rows = Destination.objects.all()
    paused = standings.paused_destinations(rows, now)
    for some in _some(paused, "destination", url=_list(Destination, standings.PAUSED)):
        yield Concern(
            happened=f"{some.told('is', 'are')} paused{some.why('stop_reason')}",
            next_step="What is due there is held, not lost.",
            remedy="Resume it.",
            url=some.url,
            tone=WARNING,
        )
    disabled = standings.disabled_destinations(rows, now)
    for some in _some(disabled, "destination", url=_list(Destination, standings.DISABLED)):
        yield Concern(
            happened=f"{some.told('was', 'were')} disabled{some.why('stop_reason')}",
            next_step="What is due there is held, not lost, until a person enables it.",
            remedy="Mend the receiver, then “Enable”.",
            url=some.url,
        )


def _dead_letters() -> Iterator[Concern]:
    """Tell what was given up, cause by cause."""
    count = count_up_to(standing.dead_letters(), MOST_COUNTED + 1)
    if not count:
        return
    causes = standing.causes() if count <= MOST_COUNTED else []
    told = [
        (str(cause), cause.count, {"given_up_because": given_up_because(cause)})
        for cause in causes[:CAUSES_SHOWN]
    ]
    if len(causes) > CAUSES_SHOWN or count > MOST_COUNTED:
        told.append(("all causes", count, {"due": "never"}))
    for words, number, filters in told:
        yield Concern(
            happened=f"{capped(number)} {'result was' if number == 1 else 'results were'} given up: {words}.",
            next_step="They are kept and not tried again by themselves.",
            remedy="Mend the receiver, then retry them from “Dead letters”.",
            url=shown.list_of("batching.request", **filters),
        )


def _batches(now: datetime) -> Iterator[Concern]:
    rows = Batch.objects.defer("provider_object")
    failed = rows.filter(state=BatchState.FAILED)
    url = shown.list_of("batching.batch", state__exact="failed")
    for some in _some(failed, "batch", many="batches", url=url):
        yield Concern(
            happened=f"{some.names} failed{some.why('last_error')}",
            next_step="Nothing more is done with what is unfinished in it.",
            remedy="Open it for its reason, then restart or delete it.",
            url=url,
        )
    slow = standings.slow_batches(rows, now)
    url = _list(Batch, standings.SLOW)
    for some in _some(slow, "batch", many="batches", url=url):
        yield Concern(
            happened=f"{some.told('is', 'are')} at the provider for longer than is usual there.",
            next_step="We go on asking. What the provider lets expire is sent again in another batch.",
            remedy="Look at its progress and at the provider's status page. Cancelling it ends what is unanswered.",
            url=url,
            tone=WARNING,
        )


def _held_back(now: datetime) -> Iterator[Concern]:
    """Tell what people have paused."""
    batches = Batch.objects.defer("provider_object")
    lanes = Lane.objects.select_related("account")
    kinds: tuple[tuple[str, str, QuerySet[Any]], ...] = (
        ("account", "", standings.paused_accounts(Account.objects.all(), now)),
        ("lane", "", standings.paused_lanes(lanes, now)),
        ("batch", "batches", standings.paused_batches(batches, now)),
    )
    for noun, many, rows in kinds:
        for some in _some(rows, noun, many=many, url=_list(rows.model, standings.PAUSED)):
            yield Concern(
                happened=f"{some.told('is', 'are')} paused{some.why('pause_reason', ' ')}",
                next_step="Nothing of it is started; what the provider has already is finished and delivered.",
                remedy="Resume it.",
                url=some.url,
                tone=WARNING,
            )


def _switches() -> Iterator[Concern]:
    raised = Flag.objects.filter(is_on=True)
    for flag in raised.order_by("name")[:NAMED]:
        yield Concern(
            happened=f"The switch “{flag.name}” is on: {flag.reason or 'no reason was given'}.",
            next_step="It stays on until a person switches it off.",
            remedy="Switch it off.",
            url=shown.page_of(flag),
            tone=WARNING,
        )


def _and_more(names: list[str]) -> str:
    """Return the first names, and that there are more."""
    first = ", ".join(name.removeprefix("batcher: ") for name in names[:NAMED])
    return f"{first}, …" if len(names) > NAMED else first
