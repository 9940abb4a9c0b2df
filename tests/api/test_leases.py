"""Leased results: one consumer at a time, final acknowledgements, groups of their own."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from batching.lifecycle import move
from batching.models import Project, Request
from delivery import leases
from delivery.models import Lease
from tests.api.conftest import first_error
from tests.api.test_reads import send
from tests.api.test_results import settle
from tests.batching.rows import a_destination, in_threads

SHORT = timedelta(seconds=30)


def post(api, call, **body):
    answer = api.post(f"/api/results/{call}", body)
    assert answer.status_code == 200, answer.getvalue()
    return json.loads(answer.getvalue())


def lease(api, **body):
    """Return the lease, and the custom_ids that it holds."""
    found = post(api, "lease", **body)
    return found["lease"], [each["result"]["custom_id"] for each in found["results"]]


def key_of(custom_id):
    return Request.objects.get(custom_id=custom_id).key


def run_out():
    """Let every lease run out."""
    Lease.objects.update(free_at=timezone.now() - timedelta(seconds=1))


@pytest.fixture
def settled(api):
    """Three results, oldest first."""
    send(api, "a", "b", "c")
    for age, custom_id in enumerate("cba"):
        settle(custom_id, seconds_ago=10 + age)
    return api


def test_each_result_is_leased_once_and_in_order(settled):
    assert lease(settled, max=2)[1] == ["a", "b"]
    assert lease(settled)[1] == ["c"]
    assert lease(settled)[1] == []


def test_a_lease_holds_what_a_webhook_gets(settled):
    found = post(settled, "lease", max=1, visibility_s=60)

    [each] = found["results"]
    assert each["id"] == key_of("a")
    assert each["leased_count"] == 1
    assert each["result"]["outcome"] == "succeeded"
    assert found["expires_at"] > timezone.now().isoformat()


def test_what_is_acknowledged_never_comes_again(settled):
    token, _ = lease(settled, max=2)

    told = post(settled, "ack", lease=token, ids=[key_of("a")])

    assert told == {"done": [key_of("a")], "lost": [], "unknown": []}
    run_out()
    assert lease(settled, max=1)[1] == ["b"]
    assert post(settled, "ack", lease=token, ids=[key_of("a")])["unknown"] == [key_of("a")]


def test_a_lease_that_ran_out_goes_to_another_whose_word_alone_counts(settled):
    slow, _ = lease(settled, max=1)
    run_out()
    found = post(settled, "lease", max=1)
    assert found["results"][0]["leased_count"] == 2

    assert post(settled, "ack", lease=slow, ids=[key_of("a")])["lost"] == [key_of("a")]
    assert post(settled, "nack", lease=slow)["done"] == []
    assert post(settled, "ack", lease=found["lease"])["done"] == [key_of("a")]


def test_what_is_given_back_comes_again_at_once_or_later(settled):
    token, _ = lease(settled, max=2)

    post(settled, "nack", lease=token, ids=[key_of("a")])
    post(settled, "nack", lease=token, delay_s=60)

    assert lease(settled)[1] == ["a", "c"]
    assert lease(settled)[1] == []


def test_one_who_gave_back_can_not_acknowledge_any_more(settled):
    token, _ = lease(settled, max=1)
    post(settled, "nack", lease=token)

    assert post(settled, "ack", lease=token, ids=[key_of("a")])["lost"] == [key_of("a")]


def test_groups_get_everything_each_for_itself(settled):
    token, _ = lease(settled, group="one")
    post(settled, "ack", group="one", lease=token)

    assert lease(settled, group="two")[1] == ["a", "b", "c"]
    assert post(settled, "ack", group="two", lease=token)["done"] == []


def test_results_with_a_destination_and_those_of_others_are_not_leased(settled, stranger):
    Request.objects.filter(custom_id="b").update(destination=a_destination())

    assert lease(settled)[1] == ["a", "c"]
    assert lease(stranger)[1] == []
    token, _ = lease(stranger)
    assert post(stranger, "ack", lease=token, ids=[key_of("a")])["unknown"] == [key_of("a")]


def test_a_request_that_is_retried_is_another_result(settled):
    token, _ = lease(settled, max=1)
    row = Request.objects.get(custom_id="a")
    Request.objects.filter(pk=row.pk).update(state="processing", settled_at=None, attempt=2)
    run_out()
    assert lease(settled)[1] == ["b", "c"]

    row.refresh_from_db()
    move(row, "answered", reason="again", settled_at=timezone.now() - timedelta(seconds=5))

    assert lease(settled)[1] == ["a"]
    assert post(settled, "ack", lease=token, ids=[row.key])["lost"] == [row.key]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"max": 0}, "/max"),
        ({"max": 1001}, "/max"),
        ({"visibility_s": "1"}, "/visibility_s"),
        ({"group": "a\nb"}, "/group"),
        ({"wait": 1}, "/wait"),
        ([], ""),
    ],
    ids=["none", "too-many", "text", "line-break", "unknown", "no-object"],
)
def test_a_wrong_wish_is_refused_with_its_pointer(api, body, pointer):
    answer = api.post("/api/results/lease", body)

    assert (answer.status_code, first_error(answer)["code"]) == (422, "validation_error")
    assert first_error(answer).get("source", {}).get("pointer", "") == pointer


def test_bytes_that_are_no_json_are_refused(api):
    for body in (b"{", b'{"group":"\xff"}'):
        assert api.post("/api/results/lease", body).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_consumers_at_once_never_hold_the_same(api):
    ids = [f"r-{number}" for number in range(40)]
    send(api, *ids)
    for custom_id in ids:
        settle(custom_id)
    project = Project.objects.get(name="ours")

    def work(_place):
        mine = []
        while found := leases.lease(
            project, "g", most=3, visibility=SHORT, now=timezone.now()
        ).rows:
            mine += [row.custom_id for row in found]
        return mine

    held = [custom_id for mine in in_threads(4, work) for custom_id in mine]

    assert sorted(held) == sorted(ids)


def test_what_is_done_leaves_no_row_and_a_call_costs_the_same(
    settled, django_assert_max_num_queries
):
    token, _ = lease(settled)
    post(settled, "ack", lease=token)

    assert Lease.objects.count() == 0
    with django_assert_max_num_queries(24):
        assert lease(settled)[1] == []
