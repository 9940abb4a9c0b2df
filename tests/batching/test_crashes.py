"""Kill the worker anywhere, or run four of them: each request is bought once and answered once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from batching import (
    admission,
    adoption,
    closing,
    collection,
    intake,
    lifecycle,
    packing,
    queueing,
    settling,
    submission,
)
from batching.models import Answer, AuditEntry, Batch, Request
from batching.providers.base import Status, Trouble
from delivery import why
from tests.batching.fake_provider import good, trouble
from tests.batching.rows import NOW, a_line, a_project, an_account, in_threads, log_of

SWEEPS = (
    packing.pack,
    submission.upload_due,
    submission.submit_due,
    adoption.adopt_due,
    collection.poll_due,
    collection.collect_due,
    closing.close_due,
)


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


def accepted(count: int) -> None:
    lines = [a_line(max_wait_s=0) for _ in range(count)]
    intake.accept(a_project(), lines, now=NOW)


def drive(provider, *, minutes: int = 22) -> int:
    """Let the clock tick each minute, a provider that answers well, and workers that may die."""
    kills = 0
    for minute in range(minutes):
        for sweep in SWEEPS:
            try:
                sweep(NOW + timedelta(minutes=minute))
            except Killed:
                kills += 1
        answer_everything(provider)
    return kills


def answer_everything(provider) -> None:
    for remote in list(provider.batches.values()):
        if remote.status is Status.VALIDATING:
            lines = provider.files[remote.input_file_id][1].splitlines()
            keys = [json.loads(line)["custom_id"] for line in lines]
            provider.finish(remote.id, output=[good(key) for key in keys])


def assert_each_was_bought_and_answered_once(provider, count: int) -> None:
    assert set(Request.objects.values_list("state", flat=True)) == {"processed"}
    assert Answer.objects.count() == Request.objects.count() == count
    assert set(Batch.objects.values_list("state", flat=True)) == {"delivered"}
    assert len(provider.batches) == Batch.objects.count()
    for request in Request.objects.all():
        assert [move[1] for move in log_of(request)] == ["accept", "submitted", "answered"]


@pytest.mark.django_db
@pytest.mark.parametrize("call", ["upload", "create", "retrieve", "download"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_at_a_call_to_the_provider(provider, call, moment):
    an_account()
    accepted(3)
    if moment == "before":
        provider.refuse(call, Killed())
    else:
        killed_after(provider, call)

    assert drive(provider) == 1

    assert_each_was_bought_and_answered_once(provider, 3)


def killed_after(provider, call: str) -> None:
    """Let the next call of this name have its effect, and the worker die of it."""
    real = getattr(provider, call)

    def last_breath(*arguments, **facts):
        setattr(provider, call, real)
        real(*arguments, **facts)
        raise Killed

    setattr(provider, call, last_breath)


def killed_at_move(number: int, moment: str, monkeypatch) -> None:
    """Let the worker die before or after this move of a batch, whichever phase makes it."""
    moves = []

    def deadly(*arguments, **how):
        moves.append(arguments)
        if len(moves) == number and moment == "before":
            raise Killed
        moved = lifecycle.move(*arguments, **how)
        if len(moves) == number:
            raise Killed
        return moved

    for module in (packing, admission, submission, collection, settling, closing):
        monkeypatch.setattr(module, "move", deadly)


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_at_its_nth_move(provider, monkeypatch, number, moment):
    an_account()
    accepted(3)
    killed_at_move(number, moment, monkeypatch)

    assert drive(provider) == 1

    assert_each_was_bought_and_answered_once(provider, 3)


@pytest.mark.django_db(transaction=True)
def test_four_workers_at_once_do_everything_once(provider):
    an_account(max_requests=5)
    accepted(40)

    for minute in range(8):
        now = NOW + timedelta(minutes=minute)
        in_threads(4, lambda place, now=now: [s(now) for s in SWEEPS[place:] + SWEEPS[:place]])
        answer_everything(provider)

    assert_each_was_bought_and_answered_once(provider, 40)
    assert Batch.objects.count() == 8
    assert (provider.count("upload"), provider.count("create")) == (8, 8)


@pytest.mark.django_db
def test_a_batch_over_whose_creation_worker_after_worker_dies_is_paused_with_the_reason(
    provider, settings
):
    settings.BATCHER_MAX_WORKER_DEATHS = 3
    an_account()
    accepted(2)
    provider.refuse("create", Killed(), times=99)

    assert drive(provider, minutes=90) == 3

    batch = Batch.objects.get()
    assert (batch.state, batch.paused_at is not None) == ("waiting_for_capacity", True)
    assert "3 workers in a row died" in str(why.of_batch(batch, NOW))
    assert AuditEntry.objects.get(action="batch.pause").object_key == batch.key
    assert set(Request.objects.values_list("state", flat=True)) == {"pending"}


@pytest.mark.django_db
def test_such_a_batch_goes_again_when_it_is_resumed(provider, settings):
    settings.BATCHER_MAX_WORKER_DEATHS = 2
    an_account()
    accepted(2)
    provider.refuse("create", Killed(), times=2)
    drive(provider, minutes=60)

    queueing.resume(Batch.objects.get(), by=lifecycle.CLOCK, reason="more memory", now=NOW)
    drive(provider, minutes=60)

    assert_each_was_bought_and_answered_once(provider, 2)


@pytest.mark.django_db
def test_a_worker_that_lives_to_tell_of_its_failure_counts_for_nothing(provider, settings):
    settings.BATCHER_MAX_WORKER_DEATHS = 2
    an_account()
    accepted(1)
    for _ in range(3):
        provider.refuse("create", Killed())
        provider.refuse("create", trouble(Trouble.RETRY))

    assert drive(provider, minutes=60) == 3

    assert_each_was_bought_and_answered_once(provider, 1)


@pytest.mark.django_db
def test_lines_that_go_with_a_create_and_kill_its_workers_are_taken_apart(
    provider, settings, monkeypatch
):
    settings.BATCHER_MAX_WORKER_DEATHS = 2
    monkeypatch.setattr(adoption, "TakesFiles", type(None))
    an_account()
    accepted(2)
    provider.refuse("create", Killed(), times=2)

    drive(provider, minutes=60)

    assert set(Request.objects.values_list("state", flat=True)) == {"processed"}
    states = Batch.objects.order_by("pk").values_list("state", flat=True)
    assert list(states) == ["failed", "delivered", "delivered"]
