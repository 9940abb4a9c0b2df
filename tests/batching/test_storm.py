"""Eight worker processes race for three places while people pause, move and cancel: nothing starts twice.

``STORM_SECONDS=60`` makes it long, with two hundred batches.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone
from django_fsm_log.models import StateLog

from batching import claims, queueing, steering, submission
from batching.lifecycle import (
    BATCH_ENDS,
    Actor,
    BatchState,
    Stale,
    TransitionNotAllowed,
    move,
)
from batching.models import Batch, Lane
from batching.steering import Refused
from tests.batching.rows import a_batch, a_lane, a_request

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SECONDS = float(os.environ.get("STORM_SECONDS", "4"))
WORKERS, MOST = 8, 3
PATIENCE_S = 60.0
"""How much longer a busy computer may take until more was started than may be held at once."""
BATCHES = 200 if SECONDS >= 60 else 40
HELD = ("submitting", "processing", "cancelling")
_fork = multiprocessing.get_context("fork")


@pytest.fixture
def created(provider, tmp_path, monkeypatch):
    """Let every process note what it creates in one file; return its path."""
    path, create = tmp_path / "created", provider.create

    def and_note(*, source, endpoint, metadata):
        with path.open("a") as file:
            file.write(metadata[submission.KEY] + "\n")
        return create(source=source, endpoint=endpoint, metadata=metadata)

    monkeypatch.setattr(provider, "create", and_note)
    return path


def in_processes(count: int, work, tmp_path) -> list:
    """Start ``work(place)`` in processes of its own; what goes wrong there fails the test."""
    connections.close_all()

    def one(place: int) -> None:
        try:
            work(place)
        except BaseException:
            (tmp_path / f"error-{place}").write_text(traceback.format_exc())
            raise
        finally:
            connections.close_all()

    started = [_fork.Process(target=one, args=(place,)) for place in range(count)]
    for process in started:
        process.start()
    return started


def ended(processes, tmp_path, timeout_s: float) -> None:
    for process in processes:
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
    errors = "\n".join(path.read_text() for path in tmp_path.glob("error-*"))
    assert [p.exitcode for p in processes] == [0] * len(processes), errors


def finish_one(rng) -> None:
    """Be the provider and the rest of the road for one batch: its results are delivered."""
    held = list(Batch.objects.filter(state__in=("processing", "cancelling"))[:9])
    if held:
        batch = rng.choice(held)
        with transaction.atomic():
            for step in ("complete", "download", "settled", "deliver", "delivered"):
                move(batch, step, reason="storm", next_attempt_at=None)


def meddle(rng) -> None:
    """Do one thing that a person may do, to any batch or the lane."""
    batches = list(Batch.objects.exclude(state__in=BATCH_ENDS).order_by("pk")[:60])
    if not batches:
        return
    batch, who = rng.choice(batches), {"by": Actor(name="storm"), "reason": "storm"}
    who["now"] = timezone.now()
    deeds = {
        queueing.pause: {}, queueing.resume: {}, queueing.move_to_top: {}, queueing.promote: {},
        queueing.move_to_bottom: {}, queueing.move_before: {"other": rng.choice(batches)},
        queueing.set_priority: {"priority": rng.randint(-100, 100)},
    }  # fmt: skip
    roll = rng.random()
    if roll < 0.06:
        steering.cancel_batch(batch, **who)
    elif roll < 0.12:
        queueing.pause_lane(batch.lane, **who)
    elif roll < 0.24:
        queueing.resume_lane(batch.lane, **who)
    else:
        deed = rng.choice(list(deeds))
        deed(batch, **deeds[deed], **who)


def work_in_the_storm(place: int) -> None:
    rng, began = random.Random(place), time.monotonic()  # noqa: S311
    while time.monotonic() < began + (SECONDS if starts() > MOST else SECONDS + PATIENCE_S):
        deed = rng.choice((submission.submit_due, finish_one, meddle))
        with contextlib.suppress(Refused, Stale, TransitionNotAllowed):  # somebody was first
            deed(timezone.now() if deed is submission.submit_due else rng)
        assert Batch.objects.filter(state__in=HELD).count() <= MOST


def starts() -> int:
    return StateLog.objects.filter(transition="submit").count()


def drain() -> None:
    """Let everything go and come to its end."""
    Lane.objects.update(paused_at=None)
    Batch.objects.update(paused_at=None)
    rng, unfinished = random.Random(1), Batch.objects.exclude(state__in=BATCH_ENDS)  # noqa: S311
    for _ in range(20 * BATCHES):
        if not unfinished.exists():
            return
        for held in list(Batch.objects.filter(state=BatchState.SUBMITTING)):
            move(held, "accepted", reason="its worker was cut off")
        submission.submit_due(timezone.now())
        finish_one(rng)
    raise AssertionError(f"left: {Counter(unfinished.values_list('state', flat=True))}")


def most_at_once() -> int:
    """Replay the log: how many batches the provider held at the same time, at most.

    A start is logged under the account's lock, after every end that made room for it: in the order of the log
    a start that was right is never one too many.
    """
    held, most = set(), 0
    for pk, state in StateLog.objects.order_by("pk").values_list("object_id", "state"):
        held = held | {pk} if state in HELD else held - {pk}
        most = max(most, len(held))
    return most


@pytest.mark.timeout(SECONDS * 4 + PATIENCE_S + 120)
def test_no_limit_is_exceeded_and_nothing_is_started_twice(created, tmp_path):
    lane = a_lane(token_limit=10**9, max_batches_in_flight=MOST)
    for n in range(BATCHES):
        a_batch(lane=lane, state="uploaded", next_attempt_at=timezone.now(), token_estimate=n)

    ended(
        in_processes(WORKERS, work_in_the_storm, tmp_path), tmp_path, SECONDS * 2 + PATIENCE_S + 60
    )
    started = starts()
    drain()

    assert started > MOST
    assert most_at_once() == MOST
    assert set(Batch.objects.values_list("state", flat=True)) <= {"delivered", "cancelled"}
    for counted in (
        Counter(created.read_text().split()),
        Counter(StateLog.objects.filter(transition="submit").values_list("object_id", flat=True)),
    ):
        assert set(counted.values()) == {1}
    assert not Batch.objects.exclude(last_error="").exists()


@pytest.fixture
def stopped_upload(provider, tmp_path, monkeypatch):
    """Let a worker process stop in the middle of its upload; yield that process."""
    monkeypatch.setattr(claims, "LEASE", timedelta(seconds=1))
    began, ours, upload = tmp_path / "began", os.getpid(), provider.upload

    def slow(path, *, filename):
        if os.getpid() != ours:
            began.touch()
            time.sleep(1.5)  # of its own time: none passes for it while it is stopped
        return upload(path, filename=filename)

    monkeypatch.setattr(provider, "upload", slow)
    (worker,) = in_processes(1, lambda _: submission.upload_due(timezone.now()), tmp_path)
    while not began.exists():
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGSTOP)
    yield worker
    worker.kill()
    worker.join()


@pytest.fixture
def sealed():
    batch = a_batch(state="uploading", next_attempt_at=timezone.now())
    a_request(batch=batch)
    return batch


def test_a_worker_that_comes_back_after_its_lease_writes_nothing(sealed, stopped_upload, tmp_path):
    deadline = time.monotonic() + 30
    while not submission.upload_due(timezone.now()):
        assert time.monotonic() < deadline, "nobody could take over"
        time.sleep(0.1)
    taken_over = Batch.objects.filter(pk=sealed.pk).values().get()
    assert (taken_over["state"], taken_over["fence"]) == ("uploaded", 2)

    os.kill(stopped_upload.pid, signal.SIGCONT)
    ended([stopped_upload], tmp_path, 30)

    assert Batch.objects.filter(pk=sealed.pk).values().get() == taken_over
    assert StateLog.objects.filter(transition="uploaded").count() == 1
