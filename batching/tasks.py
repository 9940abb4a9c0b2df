"""Celery's way into batching: each task does one sweep and rings for the next step.

No task carries state and none retries: rows say what is due, sweeps find it. A lost message costs a
few seconds, a doubled one nothing.
"""

from __future__ import annotations

from datetime import datetime

from celery import shared_task

from batching import (
    adoption,
    clientbatch,
    clientfiles,
    closing,
    collection,
    deadlines,
    direct,
    exports,
    packing,
    planner,
    submission,
    tally_sources,
    tallying,
)
from batching.admin import exporting, running
from batching.models import Beat, KeptAnswer, Notice
from batching.ticks import ring, tick


@shared_task
def pack(*, rung: bool = False) -> None:
    """Pack pending requests and seal what is full or old."""
    if tick("pack", packing.pack, rung=rung):
        ring("batching.tasks.upload")


@shared_task
def watch_deadlines(*, rung: bool = False) -> None:
    """Let near deadlines go first, and end what can't be met where its project says so."""
    if tick("watch_deadlines", deadlines.watch, rung=rung):
        ring("delivery.tasks.send")


@shared_task
def answer_late(*, rung: bool = False) -> None:
    """Ask directly for what can't make it in a batch."""
    if tick("answer_late", direct.answer_late, rung=rung):
        ring("delivery.tasks.send")


@shared_task
def upload(*, rung: bool = False) -> None:
    """Upload sealed batches."""
    if tick("upload", submission.upload_due, rung=rung):
        ring("batching.tasks.submit")


@shared_task
def submit(*, rung: bool = False) -> None:
    """Create provider batches as far as there is room."""
    tick("submit", submission.submit_due, rung=rung)


@shared_task
def adopt(*, rung: bool = False) -> None:
    """Look for batches whose creation is in doubt."""
    tick("adopt", adoption.adopt_due, rung=rung)


@shared_task
def poll(*, rung: bool = False) -> None:
    """Ask providers how their batches are doing."""
    if tick("poll", collection.poll_due, rung=rung):
        ring("batching.tasks.collect")


@shared_task
def collect(*, rung: bool = False) -> None:
    """Fetch and settle answers."""
    if tick("collect", collection.collect_due, rung=rung):
        ring("delivery.tasks.send")


@shared_task
def close(*, rung: bool = False) -> None:
    """Close batches with nothing left on its way."""
    tick("close", closing.close_due, rung=rung)


@shared_task
def read(*, rung: bool = False) -> None:
    """Read the files of clients' batches."""
    if tick("read", clientbatch.read_due, rung=rung):
        ring("batching.tasks.pack")


@shared_task
def watch(*, rung: bool = False) -> None:
    """End clients' batches whose last request has ended."""
    tick("watch", clientbatch.watch_due, rung=rung)


@shared_task
def tidy(*, rung: bool = False) -> None:
    """Remove clients' files and exports whose time is over."""
    tick("tidy", _tidy, rung=rung)


def _tidy(now: datetime) -> int:
    return clientfiles.sweep(now) + exports.sweep(now)


@shared_task
def export(*, rung: bool = False) -> None:
    """Go on with exports: files of requests that people ordered."""
    tick("export", exporting.step_due, rung=rung)


@shared_task
def forget_answers(*, rung: bool = False) -> None:
    """Drop kept answers that are a day old."""
    tick("forget_answers", KeptAnswer.objects.prune, rung=rung)


@shared_task
def analyze(*, rung: bool = False) -> None:
    """Keep fresh what the database's planner knows of our tables."""
    tick("analyze", lambda _now: planner.analyze_grown(), rung=rung)


@shared_task
def forget_notices(*, rung: bool = False) -> None:
    """Drop providers' notices that can't come again, and tallies that no chart shows any more."""
    tick("forget_notices", _forget, rung=rung)


def _forget(now: datetime) -> int:
    return Notice.objects.prune(now) + tallying.prune(now) + Beat.objects.prune(now)


@shared_task
def tally(*, rung: bool = False) -> None:
    """Count moves and answers for the charts."""
    tick("tally", _tally, rung=rung)


def _tally(now: datetime) -> int:
    return sum(tallying.fold(source, now) for source in tally_sources.ALL)


@shared_task
def run(*, rung: bool = False) -> None:
    """Go on with runs: moves that were ordered for everything that a filter matched."""
    if tick("run", running.step_due, rung=rung):
        ring("batching.tasks.pack")
        ring("delivery.tasks.send")
