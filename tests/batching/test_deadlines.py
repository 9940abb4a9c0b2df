"""What ``deliver_by`` brings about: batches sealed early, sent first, and what becomes of those that are too late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import deadlines, order, packing, turnaround
from batching.models import Batch, Project, Request, Turnaround
from batching.turnaround import GUESS
from tests.batching.rows import (
    NOW,
    a_batch,
    a_lane,
    a_project,
    a_request,
    log_of,
    states_of,
)

pytestmark = pytest.mark.django_db

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def lane():
    """A lane whose batches take half an hour, some an hour."""
    lane = a_lane()
    Turnaround.objects.create(lane=lane, spans_s=[], p50_s=1800, p90_s=3600, batches=9)
    return lane


def again(row):
    return type(row).objects.get(pk=row.pk)


def policy(word: str) -> Project:
    project = a_project()
    Project.objects.filter(pk=project.pk).update(deadline_policy=word)
    return project


def wanted(deliver_by, **fields) -> Request:
    return a_request(deliver_by=deliver_by, seal_by=NOW + 9 * HOUR, **fields)


class TestSealing:
    def test_a_batch_is_sealed_when_its_nearest_deadline_asks_for_it(self, lane):
        wanted(NOW + 3 * HOUR, lane=lane)
        wanted(NOW + 2 * HOUR, lane=lane)
        packing.pack(NOW)
        batch = Batch.objects.get()
        asked = NOW + HOUR - 2 * MINUTE  # nine of ten take an hour; two minutes are ours

        assert (batch.deliver_by, batch.seal_by) == (NOW + 2 * HOUR, asked)
        packing.pack(asked - MINUTE)
        assert states_of(batch) == ["building"]
        packing.pack(asked)
        assert log_of(batch)[-1][1::3] == (
            "seal",
            "its nearest deadline, 14:00 UTC, asks for it [by clock]",
        )

    def test_urgent_requests_gather_for_half_a_minute(self, lane):
        wanted(NOW + MINUTE, lane=lane)
        packing.pack(NOW)

        assert Batch.objects.get().seal_by == NOW + timedelta(seconds=30)

    def test_a_deadline_never_makes_a_batch_wait_longer(self, lane):
        a_request(lane=lane, seal_by=NOW + MINUTE, deliver_by=NOW + 20 * HOUR)
        packing.pack(NOW)

        assert Batch.objects.get().seal_by == NOW + MINUTE

    def test_near_deadlines_are_packed_before_older_requests(self, lane):
        type(lane.account).objects.update(max_requests=1)
        old, near = a_request(lane=lane), wanted(NOW + HOUR, lane=lane)
        packing.pack(NOW)

        assert again(near).batch_id < again(old).batch_id


class TestOrder:
    def test_a_batch_with_a_near_deadline_goes_before_others_of_its_priority(self, lane):
        plain, first, near = (
            a_batch(lane=lane, state="waiting_for_capacity", rank=rank, **fields)
            for rank, fields in enumerate(
                [{}, {"priority": 1}, {"deliver_by": NOW + HOUR}], start=1
            )
        )
        far = a_batch(lane=lane, state="waiting_for_capacity", rank=0, deliver_by=NOW + 5 * HOUR)
        deadlines.watch(NOW)

        assert list(order.line_of(lane)) == [first, near, far, plain]


class TestTooLate:
    def test_half_of_the_batches_taking_longer_makes_it_too_late(self, lane):
        project = policy("fail")
        late = wanted(NOW + 30 * MINUTE, lane=lane, project=project)
        wanted(NOW + 31 * MINUTE, lane=lane, project=project)

        assert deadlines.watch(NOW) == 1
        late = again(late)
        assert (late.state, late.error_code) == ("failed", "deadline_exceeded")
        assert late.settled_at is not None

    def test_without_figures_only_a_deadline_that_has_passed_is_too_late(self):
        rows = [wanted(NOW + second, project=policy("fail")) for second in (-MINUTE, MINUTE)]
        deadlines.watch(NOW)

        assert states_of(*rows) == ["failed", "pending"]

    def test_by_default_a_late_request_goes_on_waiting(self, lane):
        late = wanted(NOW - HOUR, lane=lane)

        assert deadlines.watch(NOW) == 0
        assert states_of(late) == ["pending"]

    @pytest.mark.parametrize("state", ["submitting", "processing"])
    def test_what_a_provider_has_is_waited_for(self, lane, state):
        policy("fail")
        batch = a_batch(lane=lane, state=state)
        inner = "pending" if state == "submitting" else "processing"
        late = wanted(NOW - HOUR, batch=batch, state=inner)

        assert deadlines.watch(NOW) == 0
        assert states_of(batch, late) == [state, inner]

    def test_a_file_is_made_anew_without_it_and_its_batch_keeps_its_place(self, lane):
        policy("fail")
        batch = a_batch(
            lane=lane, state="waiting_for_capacity", rank=7, input_file_id="file_1",
            input_sha256="x" * 64, wait_reason="full", next_attempt_at=NOW + HOUR, request_count=2,
        )  # fmt: skip
        late, other = wanted(NOW - MINUTE, batch=batch), a_request(batch=batch)
        deadlines.watch(NOW)

        batch = again(batch)
        assert states_of(late, other) == ["failed", "pending"]
        assert (batch.state, batch.rank, batch.next_attempt_at) == ("uploading", 7, NOW)
        assert (batch.input_file_id, batch.request_count, batch.fence) == ("", 1, 1)

    def test_more_than_a_chunk_is_failed_in_one_turn(self, lane, monkeypatch):
        monkeypatch.setattr(deadlines, "_CHUNK", 2)
        for _ in range(5):
            wanted(NOW, lane=lane, project=policy("fail"))

        assert deadlines.watch(NOW) == 5


class TestTurnaround:
    def test_percentiles_are_learned_from_three_batches_on(self, lane):
        other = a_lane("gpt-4o")
        for count, minutes in enumerate((10, 30, 20)):
            assert turnaround.expected(other) == GUESS, count
            batch = a_batch(lane=other, state="delivering", create_started_at=NOW)
            turnaround.learn(batch, NOW + minutes * MINUTE)

        known = turnaround.expected(other)
        assert (known.p50, known.p90, known.batches) == (20 * MINUTE, 30 * MINUTE, 3)

    def test_the_last_hundred_are_remembered(self, lane):
        for minutes in (*[500] * 50, *[10] * 100):
            batch = a_batch(lane=lane, state="delivering", create_started_at=NOW)
            turnaround.learn(batch, NOW + minutes * MINUTE)

        assert turnaround.expected(lane).p90 == 10 * MINUTE

    @pytest.mark.parametrize("fields", [{}, {"create_started_at": NOW, "cancel_asked": True}])
    def test_a_batch_that_was_stopped_teaches_nothing(self, fields):
        turnaround.learn(a_batch(**fields), NOW + HOUR)

        assert not Turnaround.objects.exists()
