"""Replays: many results are sent again in the background, each once, as slowly as was asked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import walks
from batching.lifecycle import Actor
from batching.models import Batch, Request
from batching.steering import Refused
from delivery import dispatch, replays
from delivery.models import Replay
from delivery.replays import Unknown, Which
from tests.batching.rows import NOW, a_batch, a_destination, a_lane, a_project, a_request
from tests.delivery.receivers import answering
from tests.delivery.results import a_bad_end, a_result, listening

BY = Actor(name="key bm_live_x")
pytestmark = pytest.mark.django_db


def start(which=None, *, project=None, only_failed=True, per_second=50.0, now=NOW, **members):
    return replays.start(
        which or Which(**members),
        project=project or a_project(),
        only_failed=only_failed,
        per_second=per_second,
        by=BY,
        reason="it was down",
        now=now,
    )


def given_up(place=None, at=NOW - timedelta(hours=1), **fields):
    fields = {"state": "delivery_failed", "due_at": None, "dead_at": at, "settled_at": at} | fields
    return a_result(place, **fields)


def delivered(place=None, at=NOW - timedelta(hours=1), **fields):
    fields = {"state": "delivered", "due_at": None, "delivered_at": at, "settled_at": at} | fields
    return a_result(place, **fields)


def due_again():
    return set(Request.objects.filter(due_at__isnull=False).values_list("pk", flat=True))


def figures(replay):
    replay.refresh_from_db()
    return replay.state, replay.matched, replay.done, replay.skipped


def test_what_was_given_up_is_due_again_and_what_was_delivered_is_left_alone():
    place = a_destination()
    dead, bad, _ = (
        given_up(place),
        a_bad_end(place, due_at=None, dead_at=NOW),
        delivered(place),
    )

    replay = start(destination=place.key)

    assert replays.step_due(NOW) == 2
    assert due_again() == {dead.pk, bad.pk}
    assert figures(replay) == ("done", 2, 2, 0)


def test_what_was_delivered_goes_again_when_that_is_asked():
    rows = {row.pk for row in (given_up(), delivered(), a_bad_end(due_at=None))}
    a_request(state="processed")  # its client pulls
    a_result(state="processing", due_at=None)

    start(only_failed=False, to=NOW + timedelta(days=1))
    replays.step_due(NOW)

    assert due_again() <= rows
    assert len(due_again()) == 2  # a bad end without a time is in no range


@pytest.mark.parametrize(
    "members",
    [
        {"batch": lambda row: row.batch.key},
        {"model": lambda row: row.lane.model},
        {"destination": lambda row: row.destination.key},
        {"destination": lambda row: row.destination.name},
        {"custom_id": lambda row: row.custom_id},
        {"q": lambda row: row.custom_id[:6]},
        {"state": lambda row: row.state},
        {"from_": lambda row: row.dead_at},
        {"to": lambda row: NOW, "custom_id": lambda row: row.custom_id},
    ],
    ids=lambda members: "+".join(members),
)
def test_each_member_of_a_filter_narrows_it(members):
    wanted = given_up(
        a_destination(name="crm"), batch=a_batch(state="delivered"), custom_id="order-1"
    )
    a_bad_end(a_destination(name="erp"), due_at=None, dead_at=NOW - timedelta(days=2))

    replay = start(**{name: of(wanted) for name, of in members.items()})
    replays.step_due(NOW)

    assert due_again() == {wanted.pk}
    assert figures(replay) == ("done", 1, 1, 0)


@pytest.mark.parametrize(
    ("bounds", "count"), [((-3, -2), 0), ((-2, -1), 1), ((-2, 0), 2), ((-1, 0), 1)]
)
def test_a_range_holds_its_beginning_and_not_its_end(bounds, count):
    place = a_destination()
    for hours in (-2, -1):
        given_up(place, NOW + timedelta(hours=hours))
    from_, to = (NOW + timedelta(hours=hours) for hours in bounds)

    start(destination=place.key, from_=from_, to=to)
    replays.step_due(NOW)

    assert len(due_again()) == count


def test_another_projects_results_are_not_touched():
    other = a_project("other")
    theirs = given_up(a_destination(project=other), project=other)
    ours = given_up()

    start()
    replays.step_due(NOW)

    assert due_again() == {ours.pk}
    for member, value in (("destination", theirs.destination.key), ("batch", a_batch().key)):
        with pytest.raises(Unknown):
            start(**{member: value})


def test_it_goes_no_faster_than_asked_and_takes_up_no_more_than_it_missed():
    for _ in range(30):
        given_up()
    replay = start(per_second=2.0)

    steps = [replays.step_due(NOW + timedelta(seconds=s)) for s in (0, 1, 4, 3600)]

    assert steps == [8, 0, 8, 14]
    assert figures(replay) == ("done", 30, 30, 0)


def test_a_replay_that_dies_in_the_middle_goes_on_where_it_was(monkeypatch):
    rows = [given_up() for _ in range(6)]
    replay = start(per_second=1.0)
    assert replays.step_due(NOW) == 4
    Request.objects.filter(pk=rows[0].pk).update(due_at=None, dead_at=NOW - timedelta(hours=1))

    def dies(self, *args, **how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            replays.step_due(NOW + timedelta(seconds=4))
    assert figures(replay) == ("running", 6, 4, 0)
    assert len(due_again()) == 3

    assert replays.step_due(NOW + timedelta(seconds=4)) == 2
    assert due_again() == {row.pk for row in rows[1:]}
    assert set(Request.objects.values_list("replays", flat=True)) == {1}


def test_a_stopped_replay_sends_nothing_more():
    for _ in range(6):
        given_up()
    replay = start(per_second=1.0)
    replays.step_due(NOW)

    replays.stop(replay, by=BY, reason="enough", now=NOW)

    assert replays.step_due(NOW + timedelta(seconds=9)) == 0
    assert figures(replay) == ("stopped", 6, 4, 0)
    with pytest.raises(Refused):
        replays.stop(replay, by=BY, reason="enough", now=NOW)


def test_windows_without_a_match_are_passed_over(monkeypatch):
    monkeypatch.setattr(walks, "WINDOW", 2)
    lane = a_lane("rare")
    rows = [given_up(lane=lane if place in (0, 8) else None) for place in range(9)]

    replay = start(model="rare")
    replays.step_due(NOW)

    assert due_again() == {rows[0].pk, rows[8].pk}
    assert figures(replay) == ("done", 2, 2, 0)


def test_what_was_sent_again_by_another_meanwhile_is_skipped():
    rows = [given_up() for _ in range(6)]
    replay = start(per_second=1.0)
    replays.step_due(NOW)
    Request.objects.filter(pk=rows[5].pk).update(dead_at=None)

    replays.step_due(NOW + timedelta(seconds=4))

    assert figures(replay) == ("done", 6, 5, 1)


def test_of_a_batch_that_delivers_only_what_was_given_up_goes_again():
    batch = a_batch(state="delivering", next_attempt_at=NOW + timedelta(minutes=5))
    dead, well = given_up(batch=batch), delivered(batch=batch)

    replay = start(only_failed=False, batch=batch.key)
    replays.step_due(NOW)

    assert due_again() == {dead.pk}
    assert well.pk not in due_again()
    assert figures(replay) == ("done", 2, 1, 1)
    assert Batch.objects.get().next_attempt_at == NOW


def test_what_ended_after_it_began_is_not_meant():
    given_up()
    replay = start()
    late = given_up(at=NOW + timedelta(seconds=1))

    replays.step_due(NOW)

    assert late.pk not in due_again()
    assert figures(replay) == ("done", 1, 1, 0)


def test_all_that_was_ever_delivered_is_refused_and_so_are_too_many():
    with pytest.raises(Refused, match="too much"):
        start(only_failed=False)
    for _ in range(replays.MOST_RUNNING):
        start()
    with pytest.raises(Refused, match="run already"):
        start()


def test_a_step_that_fails_is_tried_again_and_holds_up_no_other(monkeypatch):
    bad, good = start(custom_id="x"), start()
    row = given_up()
    Replay.objects.filter(pk=good.pk).update(top_id=row.pk)
    Replay.objects.filter(pk=bad.pk).update(filter={"state": "nonsense"})

    replays.step_due(NOW)

    assert due_again() == {row.pk}
    assert figures(good)[0] == "done"
    bad.refresh_from_db()
    assert (bad.state, bad.tries) == ("running", 1)
    assert "ValidationError" in bad.error
    assert bad.next_step_at > NOW


@pytest.mark.django_db(transaction=True)
def test_the_receiver_sees_the_same_id_and_that_it_is_a_replay(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    with listening(answering("200 OK")) as receiver:
        place = a_destination(url=receiver.url("/hook"))
        for _ in range(3):
            a_result(place, settled_at=NOW)
        dispatch.send_due()
        start(destination=place.key, only_failed=False)
        replays.step_due(NOW)
        dispatch.send_due()

    first, again = receiver.requests[:3], receiver.requests[3:]
    assert {r.headers["webhook-id"] for r in first} == {r.headers["webhook-id"] for r in again}
    assert len(first) == len(again) == 3
    assert [r.headers.get("x-replay") for r in (*first, *again)] == [None] * 3 + ["1"] * 3
