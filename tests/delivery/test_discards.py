"""Discarding: what was given up and nobody wants any more, and back again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching.lifecycle import Actor
from batching.models import Request
from batching.steering import Refused
from batching.tally_sources import MOVES
from delivery import discards, redelivery, replays, standing, why
from delivery.replays import Which
from tests.batching.rows import NOW, a_destination, a_request, an_answer, log_of

pytestmark = pytest.mark.django_db
ANNA = Actor(name="anna", user_id=None)
WHY = {"by": ANNA, "reason": "the customer left", "now": NOW}


def dead(cause="http_status:503", state="delivery_failed", **fields) -> Request:
    fields.setdefault("destination", None)
    fields["destination"] = fields["destination"] or a_destination()
    facts = {"state": state, "dead_at": NOW, "dead_cause": cause, "settled_at": NOW}
    return a_request(**(facts | fields))


def test_a_discarded_result_keeps_its_state_and_is_a_dead_letter_no_more():
    request = dead()

    discards.discard(request, **WHY)

    assert (request.state, request.dead_at, request.discarded_at) == ("delivery_failed", NOW, NOW)
    assert not standing.dead_letters().exists()
    assert standing.groups(NOW) == []
    assert "discarded" in str(why.of_request(request, NOW))


def test_its_history_tells_who_discarded_it_and_why():
    request = dead(state="failed")

    discards.discard(request, **WHY)
    discards.take_back(request, **WHY | {"reason": "they are back"})

    assert [(source, name, target) for source, name, target, *_ in log_of(request)] == [
        ("failed", "discard", "failed"),
        ("failed", "take_back", "failed"),
    ]
    assert "the customer left" in log_of(request)[0][-1]


def test_what_was_taken_back_waits_for_a_person_again():
    request = dead()
    discards.discard(request, **WHY)

    discards.take_back(request, **WHY)

    assert list(standing.dead_letters()) == [request]


def test_a_discard_is_no_further_bad_end_for_the_charts():
    request = dead(state="failed")
    discards.discard(request, **WHY)

    found = MOVES.read(0, 10**9).counted

    assert [(one.measure, one.name) for one in found] == [("moved", "failed>failed")]


@pytest.mark.parametrize("fields", [{"state": "delivered"}, {"state": "processed", "due_at": NOW}])
def test_only_a_dead_letter_is_discarded(fields):
    request = a_request(destination=a_destination(), **fields)

    with pytest.raises(Refused):
        discards.discard(request, **WHY)
    with pytest.raises(Refused):
        discards.take_back(request, **WHY)
    assert log_of(request) == []


def test_many_are_discarded_by_a_few_statements(django_assert_max_num_queries):
    place = a_destination()
    ids = [dead(destination=place).pk for _ in range(5)] + [a_request().pk]

    with django_assert_max_num_queries(6):
        done = discards.discard_many(ids, **WHY)

    assert done == Request.objects.filter(discarded_at=NOW).count() == 5


def test_a_replay_of_what_failed_leaves_out_what_was_discarded():
    place = a_destination()
    kept, gone = dead(destination=place), dead(destination=place)
    discards.discard(gone, **WHY)

    found = replays.look(Which(destination=place.key), project=None, only_failed=True)

    assert [row.pk for row in found.samples] == [kept.pk]


def test_redelivering_one_that_was_discarded_ends_that():
    request = dead()
    an_answer(request)
    discards.discard(request, **WHY)

    redelivery.redeliver_request(request, **WHY)

    assert (request.state, request.due_at) == ("processed", NOW)
    assert (request.dead_at, request.dead_cause, request.discarded_at) == (None, None, None)


def test_a_replay_means_just_what_was_given_up_for_its_cause():
    place = a_destination()
    busy, late = dead(destination=place), dead("timeout", destination=place)
    unknown = dead(None, destination=place)
    found = {}
    for cause in ("http_status:503", "timeout", "unknown"):
        seen = replays.look(Which(cause=cause), project=None, only_failed=False)
        found[cause] = [row.pk for row in seen.samples]

    assert found == {"http_status:503": [busy.pk], "timeout": [late.pk], "unknown": [unknown.pk]}


def test_groups_tell_destination_cause_count_and_trend():
    here, there = a_destination(), a_destination()
    for minutes in (5, 30, 90):
        dead(destination=here, dead_at=NOW - timedelta(minutes=minutes))
    dead("timeout", destination=here, dead_at=NOW - timedelta(days=2))
    dead(None, destination=there)

    first, *rest = standing.groups(NOW)

    assert (first.destination_id, str(first.cause), first.cause.count) == (
        here.pk,
        "http status 503",
        3,
    )
    assert (first.lately, first.before) == (2, 1)
    assert first.oldest_at == NOW - timedelta(minutes=90)
    assert first.newest_at == NOW - timedelta(minutes=5)
    assert [(g.destination_id, str(g.cause), g.lately) for g in rest] == [
        (here.pk, "timeout", 0),
        (there.pk, "cause not known", 1),
    ]
