"""Pending requests are packed by lane, and batches are sealed when they are full or old."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import intake, packing
from batching.models import Account, Batch, Capacity, Lane, Request
from tests.batching.rows import (
    NOW,
    a_batch,
    a_lane,
    a_line,
    a_project,
    a_request,
    an_account,
    in_threads,
    log_of,
    states_of,
)

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(hours=1)


def waiting(count, **fields):
    """Return requests that fill: 100 bytes and 10 tokens each, nothing urgent."""
    fields = {"size_bytes": 100, "token_estimate": 10, "seal_by": LATER} | fields
    return [a_request(**fields) for _ in range(count)]


def held():
    """Return how many requests each batch holds, oldest first, with its state."""
    return [(b.state, b.requests.count()) for b in Batch.objects.order_by("pk")]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_requests": 3}, [("uploading", 3), ("uploading", 3), ("building", 1)]),
        ({"max_bytes": 300}, [("uploading", 3), ("uploading", 3), ("building", 1)]),
        ({"max_bytes": 299}, [("uploading", 2)] * 3 + [("building", 1)]),
        ({"token_limit": 30}, [("uploading", 3), ("uploading", 3), ("building", 1)]),
        ({"token_limit": 29}, [("uploading", 2)] * 3 + [("building", 1)]),
        ({"max_requests": 7}, [("uploading", 7)]),
        ({"max_bytes": 700}, [("building", 7)]),
    ],
    ids=["count", "bytes", "a-byte-less", "tokens", "a-token-less", "count-reached", "just-fits"],
)
def test_batches_are_filled_to_their_limits(limits, expected):
    an_account(**limits)
    waiting(7)

    sealed = packing.pack(NOW)

    assert held() == expected
    assert sealed == sum(state == "uploading" for state, _ in expected)


def test_what_a_batch_holds_is_counted():
    waiting(3, seal_by=LATER)
    waiting(1, seal_by=NOW + timedelta(minutes=5))

    packing.pack(NOW)

    batch = Batch.objects.get()
    assert (batch.request_count, batch.size_bytes, batch.token_estimate) == (4, 400, 40)
    assert batch.seal_by == NOW + timedelta(minutes=5)


def test_the_urgent_are_packed_first_and_equals_by_age():
    an_account(max_requests=3)
    (low,) = waiting(1, priority=-5)
    old, young = waiting(2)
    high = waiting(1, priority=9)[0]

    packing.pack(NOW)

    first = Batch.objects.earliest("pk")
    assert set(first.requests.all()) == {high, old, young}
    low.refresh_from_db()
    assert low.batch != first


def test_a_building_batch_goes_on_filling():
    an_account(max_requests=5)
    waiting(2)
    packing.pack(NOW)
    waiting(2)

    packing.pack(NOW)

    assert held() == [("building", 4)]


def test_lanes_are_packed_apart():
    waiting(2, lane=a_lane("one"))
    waiting(2, lane=a_lane("two"))

    packing.pack(NOW)

    assert held() == [("building", 2), ("building", 2)]


def test_a_batch_is_sealed_when_its_most_hurried_request_asks_for_it():
    waiting(2, seal_by=LATER)
    waiting(1, seal_by=NOW)

    packing.pack(NOW)

    batch = Batch.objects.get()
    assert (batch.state, batch.request_count, batch.next_attempt_at) == ("uploading", 3, NOW)
    assert log_of(batch)[-1] == ("building", "seal", "uploading", None, "old enough [by clock]")


def test_a_batch_is_not_sealed_a_moment_too_early():
    waiting(1, seal_by=NOW + timedelta(seconds=1))

    packing.pack(NOW)

    assert held() == [("building", 1)]


def test_a_request_that_does_not_wait_goes_at_the_next_tick():
    an_account()
    intake.accept(a_project(), [a_line(max_wait_s=0)], now=NOW)

    packing.pack(NOW)

    assert held() == [("uploading", 1)]


def test_an_old_batch_whose_requests_were_all_taken_back_is_dropped():
    waiting(1)
    packing.pack(NOW)
    Request.objects.update(state="cancelled")

    sealed = packing.pack(LATER)

    assert sealed == 0
    assert states_of(Batch.objects.get()) == ["cancelled"]


def test_a_request_that_fits_no_batch_any_more_fails_and_the_rest_goes_on():
    large, *_ = waiting(1, size_bytes=1000, priority=1), waiting(3)
    Account.objects.update(max_bytes=500)

    packing.pack(NOW)

    (request,) = large
    request.refresh_from_db()
    assert (request.state, request.error_code) == ("failed", "too_large")
    assert request.settled_at is not None
    assert held() == [("building", 3)]


def test_a_lane_in_trouble_holds_up_no_other():
    waiting(1, lane=a_lane(account=an_account("broken", kind="no such kind")))
    waiting(1, lane=a_lane("fine"))

    packing.pack(NOW)

    assert held() == [("building", 1)]


def test_sealing_twice_moves_once():
    batch = a_batch()
    a_request(batch=batch)

    assert packing.seal(batch.pk, reason="asked", now=NOW)
    assert not packing.seal(batch.pk, reason="asked", now=NOW)

    assert len(log_of(batch)) == 1


@pytest.mark.django_db(transaction=True)
def test_six_packers_at_once_open_one_batch_and_lose_nothing():
    an_account(max_requests=25)
    waiting(60)

    in_threads(6, lambda _place: packing.pack(NOW))

    assert sorted(held()) == [("building", 10), ("uploading", 25), ("uploading", 25)]
    assert not Request.objects.unpacked().exists()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_between_intake_and_packing_at_once():
    an_account(max_requests=30)
    project = a_project()

    def work(place):
        if place % 2:
            return [packing.pack(NOW) for _ in range(10)]
        lines = ([a_line(f"{place}-{n}-{m}") for m in range(5)] for n in range(10))
        return [intake.accept(project, chunk, now=NOW) for chunk in lines]

    in_threads(8, work)
    packing.pack(NOW)

    assert Request.objects.filter(batch__isnull=False).count() == 200
    assert sum(count for _, count in held()) == 200
    assert max(count for _, count in held()) == 30
    assert [state for state, _ in held()].count("building") <= 1


def learned(lane, *, real, estimated=100_000):
    Capacity.objects.create(
        account=lane.account, model=lane.model, real_tokens=real, estimated_tokens=estimated
    )


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (100_000, 9),  # 5 % of safety: less goes in, or it would have to go alone
        (90_000, 10),
        (85_000, 11),
        (10_000, 11),  # no more than the margin is given back
        (None, 10),
    ],
    ids=["it takes what we said", "a little less", "less than that", "hardly anything", "unknown"],
)
def test_what_answers_took_narrows_or_widens_the_margin_within_bounds(real, expected):
    an_account(token_limit=100)
    waiting(12)
    if real:
        learned(Lane.objects.select_related("account").get(), real=real)

    packing.pack(NOW)

    assert held()[0] == ("uploading", expected)


def test_a_request_that_only_fits_with_all_of_the_limit_is_packed_alone():
    an_account(token_limit=100)
    waiting(2, token_estimate=99)
    learned(Lane.objects.select_related("account").get(), real=100_000)

    packing.pack(NOW)

    assert held()[0] == ("uploading", 1)
    assert not Request.objects.filter(state="failed").exists()
