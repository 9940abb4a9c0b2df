"""Who goes first in a lane: priority, rank, age; who fits; and that nobody is overtaken for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import admission, order, packing, queueing
from batching.lifecycle import Actor, move
from batching.models import Account, Batch, Lane
from tests.batching.rows import NOW, a_batch, a_lane, a_request

pytestmark = pytest.mark.django_db
ANNA = Actor(name="anna")


@pytest.fixture
def lane():
    return a_lane(token_limit=100)


def waiting(lane, tokens=10, state="uploaded", **fields):
    fields = {"next_attempt_at": NOW} | fields
    return a_batch(lane=lane, state=state, token_estimate=tokens, **fields)


def started(lane, most=1):
    """Start batches of a lane one at a time, each done before the next; return them in that order."""
    Lane.objects.filter(pk=lane.pk).update(max_batches_in_flight=most)
    found = []
    while some := list(admission.next_up(NOW)):
        found += some
        for batch in some:
            move(batch, "fail", reason="out of the way", next_attempt_at=None)
    return found


def places(lane):
    return [(b.pk, order.place_of(b).number) for b in order.line_of(lane)]


def deed(name, batch, **more):
    getattr(queueing, name)(batch, by=ANNA, reason="urgent", now=NOW, **more)


def test_the_order_is_priority_then_rank_then_age(lane):
    old, new, urgent = waiting(lane), waiting(lane), waiting(lane, priority=5)
    first = waiting(lane, rank=1)

    assert started(lane) == [urgent, first, old, new]


def test_moved_batches_go_where_they_were_put_and_places_have_no_gaps(lane):
    ten = [waiting(lane) for _ in range(10)]
    deed("move_to_top", ten[6])
    deed("move_to_bottom", ten[2])
    deed("set_priority", ten[4], priority=10)

    in_turn = [ten[n - 1] for n in (5, 7, 1, 2, 4, 6, 8, 9, 10, 3)]
    assert places(lane) == [(b.pk, n) for n, b in enumerate(in_turn, start=1)]
    assert started(lane) == in_turn


@pytest.mark.parametrize("name", ["move_to_top", "move_to_bottom", "move_before"])
def test_a_move_writes_one_row(lane, name, django_assert_max_num_queries):
    ten = [waiting(lane) for _ in range(10)]
    before = dict(Batch.objects.values_list("pk", "rank"))
    more = {"other": ten[1]} if name == "move_before" else {}

    with django_assert_max_num_queries(9):
        deed(name, ten[5], **more)

    after = dict(Batch.objects.values_list("pk", "rank"))
    assert {pk for pk in after if after[pk] != before[pk]} == {ten[5].pk}


def test_many_moves_into_one_gap_spread_the_ranks_and_keep_the_order(lane):
    first, second = waiting(lane, rank=5), waiting(lane, rank=6)
    expected = [first]
    for _ in range(30):
        between = waiting(lane)
        deed("move_before", between, other=second)
        expected.append(between)

    assert list(order.line_of(lane)) == [*expected, second]


def test_batches_of_one_rank_go_by_age_and_can_be_parted(lane):
    one, two, three = (waiting(lane, rank=0) for _ in range(3))
    deed("move_before", three, other=two)

    assert list(order.line_of(lane)) == [one, three, two]


def test_a_batch_at_the_bottom_is_before_those_that_come_later(lane):
    one, two = waiting(lane), waiting(lane)
    deed("move_to_bottom", one)
    later = waiting(lane)

    assert list(order.line_of(lane)) == [two, one, later]


def test_moves_lead_over_priorities(lane):
    low, high = waiting(lane, priority=-3), waiting(lane, priority=7)
    middle = waiting(lane)
    deed("move_to_top", low)
    deed("move_to_bottom", high)

    assert list(order.line_of(lane)) == [low, middle, high]


def test_a_batch_has_the_highest_priority_of_its_requests_unless_someone_set_it():
    lane = a_lane()
    a_request(lane=lane, priority=3), a_request(lane=lane, priority=40)
    packing.pack(NOW)
    batch = Batch.objects.get()
    assert batch.priority == 40

    deed("set_priority", batch, priority=-1)
    packing.recount(batch)

    assert Batch.objects.get().priority == -1


@pytest.mark.parametrize("most", [0, 3])
def test_a_batch_overtaken_too_often_is_waited_for(lane, settings, most):
    settings.BATCHER_MAX_OVERTAKES = most
    waiting(lane, 50, state="processing")
    large = waiting(lane, 80)
    small = [waiting(lane, 1) for _ in range(6)]

    went = list(admission.next_up(NOW))

    assert went == small[:most]
    large.refresh_from_db()
    small[-1].refresh_from_db()
    assert large.overtaken == most
    held = f"batch {large.pk} goes first: {most} went in its stead so far"
    assert small[-1].wait_reason == held


def test_the_one_that_was_waited_for_goes_when_there_is_room(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 1
    holder = waiting(lane, 50, state="processing")
    large, *small = (waiting(lane, tokens) for tokens in (80, 1, 1))
    assert list(admission.next_up(NOW)) == small[:1]

    for batch in (holder, Batch.objects.get(pk=small[0].pk)):
        move(batch, "fail", reason="out of the way")

    assert list(admission.next_up(NOW)) == [large, small[1]]


def test_a_flood_of_urgent_batches_lets_an_old_one_through(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 4
    two_old = [waiting(lane), waiting(lane)]
    urgent = [waiting(lane, priority=50) for _ in range(10)]

    assert started(lane) == [*urgent[:4], two_old[0], *urgent[4:8], two_old[1], *urgent[8:]]


def test_who_waits_for_tokens_keeps_no_room_of_another_model(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 0
    waiting(lane, 50, state="processing")
    waiting(lane, 80)
    other = waiting(a_lane("gpt-4o", token_limit=100), 80)

    assert list(admission.next_up(NOW)) == [other]


def test_who_waits_for_the_account_keeps_its_room_from_every_lane(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 0
    Account.objects.update(max_requests_in_flight=10)
    waiting(lane, state="processing", request_count=5)
    waiting(lane, request_count=8)
    other = waiting(a_lane("gpt-4o", token_limit=100), request_count=2)

    assert list(admission.next_up(NOW)) == []
    other.refresh_from_db()
    assert "goes first" in other.wait_reason


def test_who_is_between_two_tries_holds_up_nobody(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 0
    waiting(lane, 80, state="waiting_for_capacity", next_attempt_at=NOW + timedelta(minutes=1))
    waiting(lane, 50, state="processing")
    small = waiting(lane, 1)

    assert list(admission.next_up(NOW)) == [small]


def test_a_promoted_batch_skips_the_order_and_not_the_capacity(lane, settings):
    settings.BATCHER_MAX_OVERTAKES = 0
    holder = waiting(lane, 50, state="processing")
    waiting(lane, 80, priority=9)
    too_large, small = waiting(lane, 60), waiting(lane, 1)
    deed("promote", too_large)
    deed("promote", small)

    assert list(admission.next_up(NOW)) == [small]

    move(holder, "fail", reason="out of the way")
    assert next(admission.next_up(NOW)) == too_large


def test_a_long_line_is_told_why_in_few_statements(lane, django_assert_max_num_queries):
    waiting(lane, 100, state="processing")
    for tokens in range(60):
        waiting(lane, 10 + tokens, state="waiting_for_capacity")

    with django_assert_max_num_queries(40):
        list(admission.next_up(NOW))
    with django_assert_max_num_queries(12):
        list(admission.next_up(NOW))

    reasons = Batch.objects.filter(state="waiting_for_capacity").values_list("wait_reason", "pk")
    assert sum(text == "other batches are ahead of it in its lane" for text, _ in reasons) == 40
    assert all(text for text, _ in reasons)


def test_places_of_many_lanes_are_one_query(lane, django_assert_num_queries):
    mine = [waiting(lane), waiting(lane)]
    others = [waiting(a_lane("gpt-4o")), waiting(lane, state="processing")]

    with django_assert_num_queries(1):
        found = order.places_of([*mine, *others])

    numbers = {pk: str(place) for pk, place in found.items()}
    assert numbers == {
        mine[0].pk: "place 1 of 2 in its lane",
        mine[1].pk: "place 2 of 2 in its lane",
        others[0].pk: "place 1 of 1 in its lane",
    }
