"""Tallies count each row once, whatever dies in between, and agree with counting by hand."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django_fsm_log.models import StateLog

from batching import endings, intake, tallying
from batching.lifecycle import move_many
from batching.models import Bookmark, Request, Spend, Tally
from batching.models.tallies import ALWAYS, EPOCH, KEPT
from batching.tally_sources import ANSWERS, MOVES
from tests.batching.rows import NOW, a_batch, a_lane, a_line, a_project, a_request, an_answer

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def accepted(count: int, at=NOW) -> list[Request]:
    a_lane()
    before = Request.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    intake.accept(a_project(), [a_line() for _ in range(count)], now=at)
    return list(Request.objects.filter(pk__gt=before).order_by("pk"))


def moved(rows: list[Request], name: str, at=NOW) -> None:
    some = Request.objects.filter(pk__in=[row.pk for row in rows])
    move_many(some, name, reason="a test", now=at)


def a_day() -> None:
    """Some minutes with moves of every kind, one end of an hour and one of a day among them."""
    for minute in (0, 1, 7, 59, 60, 12 * 60 - 1, 12 * 60):
        at = NOW + minute * MINUTE
        rows = accepted(6, at)
        moved(rows, "submitted", at + MINUTE)
        moved(rows[:3], "answered", at + 2 * MINUTE)
        failed = Request.objects.filter(pk__in=[row.pk for row in rows[3:5]])
        endings.end(failed, "fail", code=f"code-{minute % 2}", message="no", now=at + 2 * MINUTE)


def by_hand(width_s: int) -> Counter:
    kind = ContentType.objects.get_for_model(Request)
    rows = StateLog.objects.filter(content_type=kind).values_list(
        "timestamp", "source_state", "state"
    )
    return Counter(
        (tallying.began_at(at, width_s), f"{source or ''}>{state}") for at, source, state in rows
    )


def tallied(width_s: int, measure: str = "moved") -> dict:
    rows = Tally.objects.filter(width_s=width_s, measure=measure)
    return {(row.began_at, row.name): row.count for row in rows}


@pytest.mark.parametrize("width_s", [*KEPT, ALWAYS])
def test_moves_are_tallied_as_they_are_counted_by_hand(width_s):
    a_day()

    tallying.fold(MOVES, NOW + timedelta(hours=13))

    assert tallied(width_s) == by_hand(width_s)


def test_chunks_of_any_size_come_to_the_same(monkeypatch):
    a_day()
    tallying.fold(MOVES, NOW)
    whole = tallied(60) | tallied(ALWAYS) | tallied(60, "ended")
    Tally.objects.all().delete()
    Bookmark.objects.all().delete()
    monkeypatch.setattr(tallying, "_CHUNK", 7)

    tallying.fold(MOVES, NOW)

    assert tallied(60) | tallied(ALWAYS) | tallied(60, "ended") == whole


def test_counting_again_adds_nothing():
    a_day()
    assert tallying.fold(MOVES, NOW) > 0
    once = tallied(60)

    assert tallying.fold(MOVES, NOW) == 0
    assert tallied(60) == once


def test_a_worker_that_dies_while_it_adds_leaves_neither_gap_nor_double(monkeypatch):
    a_day()
    monkeypatch.setattr(tallying, "_CHUNK", 40)
    real, calls = tallying._add, []

    def dies(sums):
        real(sums)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt  # once: the next worker lives

    monkeypatch.setattr(tallying, "_add", dies)
    with pytest.raises(KeyboardInterrupt):
        tallying.fold(MOVES, NOW)
    tallying.fold(MOVES, NOW)

    assert tallied(ALWAYS) == by_hand(ALWAYS)


def test_of_two_workers_with_the_same_chunk_one_counts(monkeypatch):
    accepted(3)

    def overtaken(after, upto):
        monkeypatch.undo()
        tallying.fold(MOVES, NOW)
        return MOVES.read(after, upto)

    slow = tallying.Source(name="moves", model=StateLog, read=overtaken)

    assert tallying.fold(slow, NOW) == 0
    assert tallied(ALWAYS) == {(EPOCH, ">pending"): 3}


def test_bad_ends_are_tallied_by_their_errors():
    rows = accepted(4)
    moved(rows, "submitted")
    for row, (how, code) in zip(
        rows, [("fail", "a"), ("fail", "a"), ("expire", "b"), ("cancel", "")], strict=True
    ):
        endings.end(Request.objects.filter(pk=row.pk), how, code=code, message="", now=NOW)

    tallying.fold(MOVES, NOW)

    names = {name: count for (_, name), count in tallied(60, "ended").items()}
    assert names == {"failed:a": 2, "expired:b": 1, "cancelled:unknown": 1}


def test_a_provider_with_a_thousand_error_codes_makes_few_rows():
    rows = accepted(60)
    for number, row in enumerate(rows):
        code = "often" if number < 20 else f"rare-{number}"
        endings.end(Request.objects.filter(pk=row.pk), "fail", code=code, message="", now=NOW)

    tallying.fold(MOVES, NOW)

    found = {name: count for (_, name), count in tallied(60, "ended").items()}
    assert found["failed:often"] == 20
    assert found["failed:other"] == 60 - 20 - 19
    assert len(found) == 21


def test_what_was_accepted_in_a_minute_is_bounded_by_row_ids():
    first = accepted(3)
    accepted(2, NOW + MINUTE)

    tallying.fold(MOVES, NOW)

    row = Tally.objects.get(width_s=60, began_at=NOW, name=">pending")
    assert (row.first_id, row.last_id) == (first[0].pk, first[-1].pk)


def test_old_minutes_are_not_written_and_go_when_their_time_is_over():
    accepted(2, NOW - timedelta(hours=30))
    accepted(1, NOW - timedelta(hours=20))

    tallying.fold(MOVES, NOW)
    assert sum(tallied(60).values()) == 1
    assert sum(tallied(ALWAYS).values()) == 3
    tallying.prune(NOW + timedelta(hours=8))

    assert sum(tallied(60).values()) == 0
    assert sum(tallied(900).values()) == 3


def answers() -> None:
    lane, batch = a_lane("gpt-4o-mini"), a_batch(lane=a_lane("gpt-4o-mini"))
    for project in ("one", "one", "two"):
        request = a_request(project=a_project(project), lane=lane, batch=batch, state="processed")
        an_answer(
            request, input_tokens=1_000, output_tokens=100, cost_nano=105_000, received_at=NOW
        )
    request = a_request(project=a_project("two"), lane=lane, state="processed")
    an_answer(request, input_tokens=10, output_tokens=1, cost_nano=2_000, received_at=NOW)
    an_answer(a_request(project=a_project("two"), lane=lane, batch=batch), received_at=NOW)


def test_what_answers_cost_is_kept_by_day_project_and_lane():
    answers()

    tallying.fold(ANSWERS, NOW)
    tallying.fold(ANSWERS, NOW)

    of_one = Spend.objects.get(project_id=a_project("one").pk)
    assert (of_one.day, of_one.answers, of_one.input_tokens) == (NOW.date(), 2, 2_000)
    assert (of_one.cost_nano, of_one.ordinary_nano) == (210_000, 420_000)
    direct = Spend.objects.get(project_id=a_project("two").pk, is_batch=False)
    assert (direct.cost_nano, direct.ordinary_nano) == (2_000, 2_000)
    other = Spend.objects.get(project_id=a_project("two").pk, is_batch=True)
    assert (other.answers, other.unpriced, other.cost_nano) == (2, 1, 105_000)


def test_an_answer_from_before_costs_what_its_request_cost():
    batch = a_batch(lane=a_lane("gpt-4o-mini"))
    an_answer(a_request(batch=batch, cost_nano=7), input_tokens=1, received_at=NOW)
    an_answer(a_request(batch=batch, cost_nano=9, attempt=2), input_tokens=1, received_at=NOW)

    tallying.fold(ANSWERS, NOW)

    assert Spend.objects.get().cost_nano == 7


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_a_row_that_is_committed_after_a_later_one_is_counted_too():
    late = connection.copy()
    kind = ContentType.objects.get_for_model(Request)
    try:
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute(
                "INSERT INTO django_fsm_log_statelog (timestamp, state, transition, content_type_id,"
                " object_id) VALUES (%s, 'pending', 'accept', %s, 1)",
                [NOW, kind.pk],
            )
        accepted(2)
        tallying.fold(MOVES, NOW)
        assert tallied(ALWAYS) == {}
        late.commit()
    finally:
        late.close()

    tallying.fold(MOVES, NOW)

    assert tallied(ALWAYS) == {(EPOCH, ">pending"): 3}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_writers_that_never_pause_hold_nothing_up():
    first, second = connection.copy(), connection.copy()
    write = "UPDATE django_fsm_log_statelog SET state = state WHERE id < 0"
    try:
        for writer in (first, second):
            writer.set_autocommit(False)
        first.cursor().execute(write)
        accepted(2)
        tallying.fold(MOVES, NOW)
        second.cursor().execute(write)
        first.commit()

        tallying.fold(MOVES, NOW)

        assert tallied(ALWAYS) == {(EPOCH, ">pending"): 2}
    finally:
        first.close()
        second.close()
