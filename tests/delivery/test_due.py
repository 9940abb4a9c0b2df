"""The due queue: each result is claimed by one sender at a time, and what came of it is written once."""

from __future__ import annotations

import json
from datetime import timedelta
from hashlib import sha256

import pytest

from batching.models import Request
from delivery import due, parcels
from delivery.due import LEASE, Sent
from delivery.models import Attempt
from delivery.outcome import Code, Outcome
from tests.batching.rows import NOW, a_destination, in_threads, log_of, states_of
from tests.delivery.results import a_bad_end, a_result

pytestmark = pytest.mark.django_db

WELL = Outcome(
    code=Code.DELIVERED, status=204, answer=b"thanks", address="192.0.2.1", duration_s=0.5
)
DOWN = Outcome(code=Code.CONNECTION_ERROR, detail="refused")


@pytest.fixture
def destination():
    return a_destination()


def again(row):
    return type(row).objects.get(pk=row.pk)


def claim(*destinations, most=100, now=NOW):
    return due.claim({d.pk: most for d in destinations}, now=now)


def send(destination, outcome, *, now=NOW):
    """Claim what is due at the destination, end every try alike, and record it."""
    parcels = due.load(claim(destination, now=now))
    due.record([Sent(parcel=p, outcome=outcome) for p in parcels], now=now)
    return len(parcels)


# Claiming


def test_a_claim_moves_the_result_out_of_others_reach(destination):
    request = a_result(destination)

    (one,) = claim(destination)

    request = again(request)
    assert (request.state, request.due_at) == ("delivering", NOW + LEASE)
    assert (one.request_id, one.fence, one.number) == (request.pk, request.fence, 1)
    assert claim(destination) == []


def test_a_bad_end_is_claimed_without_moving(destination):
    request = a_bad_end(destination)

    assert len(claim(destination)) == 1

    assert (again(request).state, again(request).due_at) == ("failed", NOW + LEASE)


def test_the_longest_due_go_first_and_no_more_than_there_is_room_for(destination):
    requests = [a_result(destination, due_at=NOW - timedelta(minutes=n)) for n in range(3)]

    claims = claim(destination, most=2)

    assert {c.request_id for c in claims} == {requests[2].pk, requests[1].pk}


def test_each_destination_gets_its_own_room():
    busy, quiet = a_destination(), a_destination()
    for _ in range(5):
        a_result(busy)
    a_result(quiet)

    claims = due.claim({busy.pk: 2, quiet.pk: 2}, now=NOW)

    assert [c.destination_id for c in claims] == [busy.pk, busy.pk, quiet.pk]


def test_what_is_not_due_yet_is_left(destination):
    a_result(destination, due_at=NOW + timedelta(seconds=1))

    assert claim(destination) == []


@pytest.mark.parametrize("held", ["paused_at", "disabled_at"])
def test_results_of_a_held_destination_stay_where_they_are(held):
    request = a_result(a_destination(**{held: NOW}))

    assert due.ready_destinations(NOW) == []
    assert again(request).due_at == NOW


def test_only_destinations_with_something_due_are_asked_for(destination):
    a_result(destination)
    a_result(a_destination(), due_at=NOW + timedelta(seconds=1))
    a_destination()

    assert due.ready_destinations(NOW) == [destination]


def test_a_sender_that_died_gives_its_results_back_when_its_lease_ends(destination):
    a_result(destination)
    (first,) = claim(destination)

    (second,) = claim(destination, now=NOW + LEASE)

    assert second.fence == first.fence + 1
    assert second.number == 1


def test_a_claim_that_is_renewed_is_not_given_back(destination):
    request = a_result(destination)
    claim(destination)

    due.renew([request.pk], now=NOW + LEASE / 2)

    assert claim(destination, now=NOW + LEASE) == []
    assert len(claim(destination, now=NOW + LEASE * 1.5)) == 1


def test_renewing_a_lost_claim_does_not_bring_its_next_try_forward(destination):
    waiting, done = a_result(destination), a_result(destination)
    claim(destination)
    tomorrow = NOW + timedelta(days=1)
    Request.objects.filter(pk=waiting.pk).update(due_at=tomorrow)
    Request.objects.filter(pk=done.pk).update(due_at=None)

    due.renew([waiting.pk, done.pk], now=NOW)

    assert [again(r).due_at for r in (waiting, done)] == [tomorrow, None]


@pytest.mark.django_db(transaction=True)
def test_six_senders_at_once_claim_nothing_twice():
    places = [a_destination() for _ in range(3)]
    for place in places * 20:
        a_result(place)

    claims = in_threads(6, lambda _place: [c for _ in range(5) for c in claim(*places, most=4)])

    claimed = [c.request_id for some in claims for c in some]
    assert len(claimed) == len(set(claimed)) == 60


# What is sent


def test_a_message_tells_whose_it_is(destination):
    request = a_result(destination, custom_id="Zürich/1\n")

    (parcel,) = due.load(claim(destination))

    assert parcel.message.id == f"{request.key}-1"
    assert parcel.message.headers == (
        ("x-batcher-request-id", request.key),
        ("x-batcher-custom-id", "Z%C3%BCrich/1%0A"),
    )
    assert json.loads(parcel.message.body)["outcome"] == "succeeded"


def test_another_attempt_is_another_message(destination):
    first, second = a_result(destination), a_result(destination, attempt=2)

    ids = [p.message.id for p in due.load(claim(destination))]

    assert ids == [f"{first.key}-1", f"{second.key}-2"]


def test_a_bad_end_is_sent_as_an_envelope_that_says_so(destination):
    a_bad_end(destination, state="expired")

    (parcel,) = due.load(claim(destination))

    told = json.loads(parcel.message.body)
    assert (told["outcome"], told["error"]["code"]) == ("expired", "missing_in_output")


def test_a_result_whose_request_is_gone_is_left_out(destination):
    kept, gone = a_result(destination), a_result(destination)
    claims = claim(destination)
    gone.delete()

    assert [p.claim.request_id for p in due.load(claims)] == [kept.pk]


@pytest.mark.parametrize(("rows", "size", "groups"), [(2, 10**9, [2, 2, 1]), (99, 1, [1] * 5)])
def test_groups_are_bounded_by_rows_and_bytes(monkeypatch, destination, rows, size, groups):
    monkeypatch.setattr(parcels, "_GROUP_ROWS", rows)
    monkeypatch.setattr(parcels, "_GROUP_BYTES", size)
    for _ in range(5):
        a_result(destination)

    assert [len(group) for group in due.groups(claim(destination))] == groups


# What came of it


@pytest.mark.parametrize("make", [a_result, a_bad_end], ids=["good", "bad"])
def test_a_delivered_result_is_done(destination, make):
    request = make(destination)

    send(destination, WELL)

    end = "delivered" if make is a_result else "failed"
    request = again(request)
    assert (request.state, request.due_at, request.delivered_at) == (end, None, NOW)
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.status, attempt.number) == ("delivered", 204, 1)
    assert (attempt.answer, attempt.address, attempt.duration_s) == ("thanks", "192.0.2.1", 0.5)
    assert (attempt.ended_at, attempt.next_at) == (NOW, None)


@pytest.mark.parametrize("make", [a_result, a_bad_end], ids=["good", "bad"])
def test_a_failed_try_is_due_again_on_schedule(destination, make):
    request = make(destination)

    send(destination, DOWN)

    request = again(request)
    assert request.state == ("processed" if make is a_result else "failed")
    assert request.tries == 1
    assert timedelta(seconds=4) <= request.due_at - NOW <= timedelta(seconds=6)
    attempt = Attempt.objects.get()
    assert (attempt.detail, attempt.next_at) == ("refused", request.due_at)


def test_a_try_is_logged_with_the_time_of_the_next_one_or_neither_is(destination, monkeypatch):
    def dies(*_args, **_kwargs):
        raise RuntimeError("killed")

    request = a_result(destination)
    monkeypatch.setattr(due.health, "note", dies)
    with pytest.raises(RuntimeError):
        send(destination, DOWN)

    assert not Attempt.objects.exists()
    assert (again(request).tries, again(request).due_at) == (0, NOW + LEASE)


def test_the_schedule_of_the_installation_holds_where_a_place_has_none(settings):
    settings.BATCHER_RETRY_DELAYS = [0, 1_000]
    usual, own = a_destination(), a_destination(retry_delays_s=[0, 100])
    requests = [a_result(usual), a_result(own)]

    for place in (usual, own):
        send(place, DOWN)

    waits = [(again(request).due_at - NOW).total_seconds() for request in requests]
    assert 800 <= waits[0] <= 1_200
    assert 80 <= waits[1] <= 120


@pytest.mark.parametrize("make", [a_result, a_bad_end], ids=["good", "bad"])
def test_a_result_is_given_up_after_ten_tries(destination, make):
    request = make(destination, tries=9)

    send(destination, DOWN)

    request = again(request)
    assert request.state == ("delivery_failed" if make is a_result else "failed")
    assert (request.due_at, request.dead_at, request.tries) == (None, NOW, 10)
    assert request.dead_cause == "connection_error"
    assert Attempt.objects.get().number == 10


def test_ten_tries_are_made_over_about_three_days(destination):
    request, at = a_result(destination), NOW
    while at:
        send(destination, DOWN, now=at)
        at = again(request).due_at

    assert list(Attempt.objects.values_list("number", flat=True)) == list(range(1, 11))
    assert timedelta(days=2) < again(request).dead_at - NOW < timedelta(days=4)
    assert log_of(request)[-1][1] == "delivery_failed"


def test_gone_gives_up_and_disables_the_destination_while_others_are_held(destination):
    gone, other = a_result(destination), a_result(destination, due_at=NOW + timedelta(minutes=1))

    send(destination, Outcome(code=Code.GONE, status=410))

    assert again(gone).dead_cause == "gone:410"

    destination = again(destination)
    assert (destination.disabled_at, "410 Gone" in destination.stop_reason) == (NOW, True)
    assert states_of(gone, other) == ["delivery_failed", "processed"]
    assert due.ready_destinations(NOW + timedelta(hours=1)) == []


def test_many_endings_are_told_apart_in_one_record(destination):
    requests = [a_result(destination) for _ in range(4)]
    parcels = due.load(claim(destination))
    endings = [WELL, DOWN, Outcome(code=Code.INVALID_DESTINATION), WELL]

    sent = [Sent(parcel=p, outcome=o) for p, o in zip(parcels, endings, strict=True)]
    due.record(sent, now=NOW)

    by_id = dict(zip([p.claim.request_id for p in parcels], endings, strict=True))
    expected = {WELL: "delivered", DOWN: "processed", endings[2]: "delivery_failed"}
    assert states_of(*requests) == [expected[by_id[r.pk]] for r in requests]
    assert Attempt.objects.count() == 4


def test_a_sender_that_comes_back_too_late_changes_nothing_but_its_try_is_logged(destination):
    request = a_result(destination)
    late = due.load(claim(destination))
    claim(destination, now=NOW + LEASE)
    before = Request.objects.values().get()

    for outcome in (WELL, DOWN, Outcome(code=Code.INVALID_DESTINATION)):
        due.record([Sent(parcel=late[0], outcome=outcome)], now=NOW + LEASE)

    assert Request.objects.values().get() == before
    assert request.delivery_attempts.count() == 3


def test_a_try_of_a_request_that_was_deleted_meanwhile_spoils_no_other(destination):
    kept, gone = a_result(destination), a_result(destination)
    parcels = due.load(claim(destination))
    gone.delete()

    due.record([Sent(parcel=p, outcome=WELL) for p in parcels], now=NOW)

    assert states_of(kept) == ["delivered"]
    assert Attempt.objects.get().request == kept


def test_a_result_that_is_to_be_sent_anew_is_not_ended_by_an_old_try(destination):
    request = a_bad_end(destination)
    parcels = due.load(claim(destination))
    Request.objects.filter(pk=request.pk).update(state="pending", due_at=None)

    due.record([Sent(parcel=parcels[0], outcome=DOWN)], now=NOW)

    assert (again(request).state, again(request).due_at) == ("pending", None)


def test_whatever_a_receiver_says_can_be_stored(destination):
    a_result(destination)
    nasty = Outcome(
        code=Code.HTTP_STATUS, status=500, detail="a\0b\ud800", answer=b"\0\xff\x1b[31m\r\nERROR"
    )

    send(destination, nasty)

    attempt = Attempt.objects.get()
    assert attempt.detail == "a\\x00b\\ud800"
    assert attempt.answer == "\\x00\ufffd\\x1b[31m\\r\\nERROR"


def test_an_attempt_says_when_it_was_made_of_what_and_what_broke_it(destination):
    a_result(destination)
    began = NOW + timedelta(seconds=3)
    slow = Outcome(code=Code.TIMEOUT, error="TimeoutError", started_at=began, duration_s=2.0)

    parcel = due.load(claim(destination))[0]
    due.record([Sent(parcel=parcel, outcome=slow)], now=NOW + timedelta(seconds=9))

    attempt = Attempt.objects.get()
    assert (attempt.started_at, attempt.ended_at) == (began, began + timedelta(seconds=2))
    assert attempt.error_class == "TimeoutError"
    body = parcel.message.body
    assert (attempt.body_size, attempt.body_sha256) == (len(body), sha256(body).hexdigest())


def test_no_attempt_holds_what_was_sent(destination):
    a_result(destination)
    parcel = due.load(claim(destination))[0]

    due.record([Sent(parcel=parcel, outcome=DOWN)], now=NOW)

    row = json.dumps(Attempt.objects.values().get(), default=str)
    assert json.loads(parcel.message.body)["response"]["request_id"] not in row
    assert destination.url not in row


def test_replays_are_marked_on_their_attempts(destination):
    a_result(destination, replays=1)

    send(destination, WELL)

    assert Attempt.objects.get().is_replay


def test_a_fence_only_rises(destination):
    request = a_result(destination)
    fences = []
    for hour in range(3):
        send(destination, DOWN, now=NOW + timedelta(hours=hour))
        fences.append(again(request).fence)

    assert fences == [1, 2, 3]
