"""The tables of states: every state × transition, and one log whichever way a row moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db.models import F

from batching.lifecycle import (
    Actor,
    BatchState,
    RequestState,
    Stale,
    TransitionNotAllowed,
    arrow,
    arrows,
    move,
    move_many,
)
from batching.models import Batch, Request
from tests.batching.rows import a_batch, a_lane, a_request, log_of

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SOMEONE = Actor(name="someone")


BATCH_CASES = [(s.value, a) for s in BatchState for a in arrows(Batch)]
REQUEST_CASES = [(s.value, a) for s in RequestState for a in arrows(Request)]


@pytest.mark.parametrize(
    ("state", "step"), BATCH_CASES, ids=[f"{s}-{a.name}" for s, a in BATCH_CASES]
)
def test_a_batch_moves_only_along_its_table(state, step):
    assert_moves_only_along_table(a_batch(state=state), step)


@pytest.mark.parametrize(
    ("state", "step"), REQUEST_CASES, ids=[f"{s}-{a.name}" for s, a in REQUEST_CASES]
)
def test_a_request_moves_only_along_its_table(state, step):
    assert_moves_only_along_table(a_request(state=state), step)


def assert_moves_only_along_table(row, step):
    """Take the step one by one and as a set; both must obey the table and log the same."""
    state = row.state
    many = type(row).objects.filter(pk=row.pk)
    if state not in step.sources:
        with pytest.raises(TransitionNotAllowed):
            move(row, step.name, reason="why", by=SOMEONE)
        assert move_many(many, step.name, reason="why", by=SOMEONE) == 0
        assert log_of(row) == []
        return

    move(row, step.name, reason="why", by=SOMEONE, now=NOW)

    row.refresh_from_db()
    assert (row.state, row.state_changed_at) == (step.target, NOW)
    assert log_of(row) == [(state, step.name, step.target, None, "why [by someone]")]

    many.update(state=state)
    assert move_many(many, step.name, reason="why", by=SOMEONE, now=NOW) == 1
    row.refresh_from_db()
    assert (row.state, row.state_changed_at) == (step.target, NOW)
    first, second = log_of(row)
    assert first == second


def test_a_user_who_moves_a_row_stands_in_the_log_by_name():
    user = get_user_model().objects.create(username="ada")
    by = Actor(name="ada", user_id=user.pk)
    one, other = a_batch(), a_batch(lane=a_lane("other"))

    move(one, "seal", reason="asked", by=by)
    move_many(Batch.objects.filter(pk=other.pk), "seal", reason="asked", by=by)

    assert log_of(one) == log_of(other) == [("building", "seal", "uploading", "ada", "asked")]


def test_many_move_with_their_changes_and_others_stay():
    lane = a_lane()
    waiting = [a_request(lane=lane) for _ in range(3)]
    ended = a_request(lane=lane, state="delivered")

    moved = move_many(
        Request.objects.all(),
        "submitted",
        reason="sent",
        now=NOW,
        changes={"attempt": F("attempt") + 4},
    )

    assert moved == 3
    assert {r.state for r in Request.objects.filter(pk__in=[w.pk for w in waiting])} == {
        "processing"
    }
    assert {r.attempt for r in Request.objects.filter(state="processing")} == {5}
    ended.refresh_from_db()
    assert (ended.state, ended.attempt) == ("delivered", 1)
    assert log_of(ended) == []


@pytest.mark.parametrize(
    "rows",
    [
        Request.objects.order_by("-priority"),
        Request.objects.filter(lane__model__startswith="model-"),
        Request.objects.annotate(double=F("attempt") * 2).filter(double=2),
    ],
    ids=["in an order", "by another table", "by an expression"],
)
def test_many_move_however_they_are_asked_for(rows):
    waiting = a_request(lane=a_lane("model-1"))
    ended = a_request(lane=a_lane("model-2"), state="delivered")

    assert move_many(rows.all(), "submitted", reason="sent", by=SOMEONE, now=NOW) == 1

    waiting.refresh_from_db()
    assert (waiting.state, waiting.state_changed_at) == ("processing", NOW)
    assert log_of(waiting) == [("pending", "submitted", "processing", None, "sent [by someone]")]
    assert log_of(ended) == []


def test_a_row_that_someone_else_moved_is_stale():
    batch = a_batch()
    copy = Batch.objects.get(pk=batch.pk)
    move(batch, "seal", reason="first")

    with pytest.raises(Stale):
        move(copy, "seal", reason="second")

    assert len(log_of(batch)) == 1


def test_a_row_that_someone_else_claimed_is_stale():
    batch = a_batch()
    Batch.objects.filter(pk=batch.pk).update(fence=F("fence") + 1)

    with pytest.raises(Stale):
        move(batch, "seal", reason="late")

    assert log_of(batch) == []


def test_a_failed_save_leaves_no_log_row(monkeypatch):
    batch = a_batch()

    def refuse(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(Batch, "save", refuse)
    with pytest.raises(RuntimeError):
        move(batch, "seal", reason="why")

    assert log_of(batch) == []


def test_arrows_say_what_they_mean():
    for model in (Batch, Request):
        for step in arrows(model):
            assert step.meaning, step.name
            assert arrow(model, step.name) == step


def test_arrows_come_in_the_order_in_which_they_are_defined():
    names = [step.name for step in arrows(Batch)]

    assert names[:3] == ["seal", "uploaded", "wait"]
    assert names[-1] == "restart"


def test_state_changes_are_later_than_creation():
    batch = a_batch()
    move(batch, "seal", reason="why", now=NOW + timedelta(hours=1))
    assert batch.state_changed_at == NOW + timedelta(hours=1)
