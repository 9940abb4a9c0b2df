"""What a person may do to the order and the flow, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from batching import admission, order, queueing
from batching.lifecycle import Actor, BatchState, move
from batching.models import Account, Batch, Lane
from batching.steering import Refused
from tests.batching.rows import NOW, a_batch, a_lane, log_of

pytestmark = pytest.mark.django_db
ANNA = Actor(name="anna", user_id=7)
HELD = BatchState.SUBMITTING, BatchState.PROCESSING


@pytest.fixture
def lane():
    User.objects.create(pk=ANNA.user_id, username=ANNA.name)
    return a_lane(token_limit=100)


def waiting(lane, state="uploaded", **fields):
    return a_batch(lane=lane, state=state, token_estimate=10, next_attempt_at=NOW, **fields)


def deed(name, row, **more):
    getattr(queueing, name)(row, by=ANNA, reason="the model is down", now=NOW, **more)


def code_of(name, row, **more):
    with pytest.raises(Refused) as refused:
        deed(name, row, **more)
    return refused.value.code


def test_a_paused_batch_keeps_its_place_and_others_go(lane):
    first, second, third = (waiting(lane) for _ in range(3))
    deed("pause", second)
    assert str(order.place_of(second)) == "place 2 of 3 in its lane"

    assert list(admission.next_up(NOW)) == [first, third]

    second.refresh_from_db()
    assert second.wait_reason == "paused: by user anna: the model is down"
    deed("resume", second)
    assert list(admission.next_up(NOW)) == [second]


def test_a_resumed_batch_is_at_its_place_again(lane):
    batches = [waiting(lane) for _ in range(3)]
    deed("pause", batches[1])
    deed("resume", batches[1])

    assert list(order.line_of(lane)) == batches
    assert batches[1].paused_at is None


@pytest.mark.parametrize("state", HELD)
def test_pausing_what_the_provider_holds_lets_it_finish(lane, state):
    batch = waiting(lane, state)
    deed("pause", batch)
    if state == BatchState.SUBMITTING:
        move(batch, "accepted", reason="created")

    move(batch, "complete", reason="done")

    assert batch.state == "completed"
    assert waiting(lane) in list(admission.next_up(NOW))


def test_what_bounces_while_it_is_paused_waits(lane):
    batch = waiting(lane, "processing")
    deed("pause", batch)
    move(batch, "back_off", reason="full", next_attempt_at=NOW)

    assert list(admission.next_up(NOW)) == []


@pytest.mark.parametrize("state", sorted(set(BatchState) - set(queueing.PAUSABLE)))
def test_nothing_is_left_to_pause_once_the_provider_is_done(lane, state):
    assert code_of("pause", waiting(lane, state)) == "invalid_batch_state"


def test_pausing_twice_and_resuming_twice_is_refused(lane):
    for name, row in (("", waiting(lane)), ("_lane", lane), ("_account", lane.account)):
        assert code_of(f"resume{name}", row) == "not_paused"
        deed(f"pause{name}", row)
        assert code_of(f"pause{name}", row) == "already_paused"
        deed(f"resume{name}", row)
        assert row.pause_reason == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pause_lane", "its lane is paused: by user anna: the model is down"),
        ("pause_account", "account sandbox is paused: by user anna: the model is down"),
    ],
)
def test_nothing_of_a_paused_lane_or_account_is_started(lane, name, reason):
    batch, other = waiting(lane), waiting(a_lane("gpt-4o"))
    row = lane if name == "pause_lane" else lane.account
    deed(name, row)

    assert list(admission.next_up(NOW)) == ([other] if name == "pause_lane" else [])

    batch.refresh_from_db()
    assert batch.wait_reason == reason
    assert row.state == "paused"
    deed(name.replace("pause", "resume"), row)
    assert batch in list(admission.next_up(NOW))


@pytest.mark.parametrize(
    "name", ["move_to_top", "move_to_bottom", "move_before", "set_priority", "promote"]
)
@pytest.mark.parametrize("state", ["processing", "completed", "failed", "delivered"])
def test_what_no_longer_waits_is_not_moved(lane, name, state):
    more = {"move_before": {"other": waiting(lane)}, "set_priority": {"priority": 3}}.get(name, {})

    assert code_of(name, waiting(lane, state), **more) == "invalid_batch_state"


def test_a_batch_is_moved_only_before_another_one_that_waits_in_its_lane(lane):
    batch = waiting(lane)

    assert code_of("move_before", batch, other=batch) == "same_batch"
    assert code_of("move_before", batch, other=waiting(a_lane("gpt-4o"))) == "other_lane"
    assert code_of("move_before", batch, other=waiting(lane, "processing")) == "not_in_line"


@pytest.mark.parametrize("priority", [-101, 101])
def test_a_priority_outside_of_the_range_is_refused(lane, priority):
    assert code_of("set_priority", waiting(lane), priority=priority) == "invalid_priority"


def test_a_promoted_batch_waits_for_no_further_try(lane):
    batch = waiting(lane, "waiting_for_capacity")
    Batch.objects.update(next_attempt_at=NOW + timedelta(hours=1))
    deed("promote", batch)

    assert list(admission.next_up(NOW)) == [batch]


def test_a_promoted_upload_keeps_its_claim(lane):
    batch = waiting(lane, "uploading")
    Batch.objects.update(next_attempt_at=NOW + timedelta(hours=1))
    deed("promote", batch)

    assert batch.next_attempt_at == NOW + timedelta(hours=1)


def test_a_paused_batch_is_not_promoted(lane):
    batch = waiting(lane)
    deed("pause", batch)

    assert code_of("promote", batch) == "paused"


def test_a_promoted_batch_that_is_moved_stands_where_it_was_put(lane):
    one, two = waiting(lane), waiting(lane)
    deed("promote", two)
    deed("move_to_bottom", two)

    assert list(order.line_of(lane)) == [one, two]


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("pause", {}, ("paused", "the model is down")),
        ("move_to_top", {}, ("moved", "to the top: the model is down")),
        ("move_to_bottom", {}, ("moved", "to the bottom: the model is down")),
        ("promote", {}, ("promoted", "the model is down")),
        (
            "set_priority",
            {"priority": 5},
            ("prioritized", "priority 5, it was 0: the model is down"),
        ),
    ],
)
def test_what_is_done_to_a_batch_stands_in_its_history_and_leaves_its_state(lane, name, more, told):
    batch = waiting(lane)

    deed(name, batch, **more)

    what, why = told
    assert log_of(batch) == [("uploaded", what, "uploaded", "anna", why)]
    assert batch.state == "uploaded"


def test_a_move_before_another_one_names_it(lane):
    one, two = waiting(lane), waiting(lane)

    deed("move_before", two, other=one)

    assert log_of(two)[0][4] == f"before batch {one.pk}: the model is down"


def test_what_is_refused_is_not_in_the_history(lane):
    batch = waiting(lane)
    code_of("resume", batch)

    assert log_of(batch) == []


def test_pauses_leave_the_states_of_all_alone(lane):
    deed("pause", waiting(lane))

    assert (Lane.objects.get().state, Account.objects.get().state) == ("open", "open")
