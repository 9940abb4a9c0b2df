"""AC-08: a worker is killed while it fetches large results; the next one stores and delivers each of them once."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batching.models import Answer, Batch
from tests.scenarios.client import path_of
from tests.scenarios.processes import worker_taking
from tests.scenarios.provider import fault, misbehave

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ANSWER_BYTES, ANSWERS = 8_000_000, 5
MOST_MEMORY_KB = 300_000


def until_some_is_here(folder: Path) -> None:
    """Wait until a part of the results has been written, and not the whole: a fraction of a second."""
    pause, deadline = threading.Event(), time.monotonic() + 30
    while time.monotonic() < deadline:
        written = sum(part.stat().st_size for part in folder.glob("*.part"))
        if 0 < written < ANSWER_BYTES * ANSWERS:
            return
        pause.wait(0.001)
    raise AssertionError("no part of a file was seen")


def peak_kb(process) -> int:
    """Return the most memory that a process took until it ended, in kB."""
    status, most, pause = Path(f"/proc/{process.pid}/status"), 0, threading.Event()
    while process.poll() is None:
        lines = status.read_text().splitlines() if status.exists() else []
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        pause.wait(0.05)
    return most


def make_due() -> None:
    """Let the next step be due by the real clock, which other processes go by."""
    Batch.objects.update(next_attempt_at=datetime.now(UTC))


def finished_at_the_provider(api, road, receiver, provider) -> None:
    misbehave(provider, fault("big_answer", size_bytes=ANSWER_BYTES))
    for n in range(ANSWERS):
        api.taken(f"q-{n}", f"Question {n}", to=receiver.url())
    road.until(
        lambda: bool(api.batches(state="completed")), by=("pack", "upload", "submit", "poll")
    )


def test_a_worker_killed_amid_a_large_download_loses_and_repeats_nothing(
    api, road, receiver, provider, settings
):
    finished_at_the_provider(api, road, receiver, provider)
    folder = settings.DATA_DIR / "answers"

    make_due()
    with worker_taking("collect") as worker:
        until_some_is_here(folder)
        worker.kill()
    assert not Answer.objects.exists()
    make_due()  # as if the dead worker's lease were over
    with worker_taking("collect") as worker:
        assert peak_kb(worker) < MOST_MEMORY_KB
    road.run()

    assert Answer.objects.count() == ANSWERS
    assert sorted(receiver.custom_ids()) == [f"q-{n}" for n in range(ANSWERS)]
    assert len(receiver.by_id()) == ANSWERS
    assert path_of(api.only_batch())[-1] == "delivered"
    assert provider.stats()["lines"]["answered_again"] == 0
