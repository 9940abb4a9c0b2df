"""The list of requests: frozen while it is read, paged by row id, filtered by what an index or a window serves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching.admin import keyset, request_reading, requests
from batching.models import Request, Submission
from tests.batching.rows import a_batch, a_destination, a_lane, a_project, a_request, an_account

LIST = "admin:batching_request_changelist"
pytestmark = pytest.mark.django_db


def listed(client, **address):
    """The custom_ids on a page, and its list."""
    found = client.get(reverse(LIST), address).context["cl"]
    return [row.custom_id for row in found.result_list], found


@pytest.fixture
def short_pages(monkeypatch):
    monkeypatch.setattr(requests.RequestAdmin, "list_per_page", 2)


def follow(client, url):
    found = client.get(reverse(LIST) + url).context["cl"]
    return [row.custom_id for row in found.result_list], found


def test_pages_follow_each_other_both_ways(as_, short_pages):
    for number in range(5):
        a_request(custom_id=f"r{number}")
    client = as_("viewer")

    first, page = listed(client)
    second, page = follow(client, page.older_url)
    third, last = follow(client, page.older_url)
    back, _ = follow(client, last.newer_url)

    assert [first, second, third, back] == [["r4", "r3"], ["r2", "r1"], ["r0"], ["r2", "r1"]]
    assert last.older_url == ""


def test_what_comes_while_a_list_is_read_is_told_and_not_shown(as_, short_pages):
    for number in range(3):
        a_request(custom_id=f"r{number}")
    client = as_("viewer")
    _, page = listed(client)
    a_request(custom_id="later")

    older, below = follow(client, page.older_url)
    top, _ = follow(client, below.newer_url)
    told = client.get(
        reverse("admin:batching_request_new") + page.new_query, headers={"hx-request": "true"}
    )

    assert (older, top) == (["r0"], ["r2", "r1"])
    assert b"1 new, refresh" in told.content
    assert listed(client)[0] == ["later", "r2"]


def test_only_what_the_filter_means_is_told_as_new(as_):
    a_request(state="failed")
    client = as_("viewer")
    _, page = listed(client, state__exact="failed")
    a_request()

    told = client.get(
        reverse("admin:batching_request_new") + page.new_query, headers={"hx-request": "true"}
    )

    assert b"new, refresh" not in told.content


def test_the_question_for_new_rows_leads_anyone_else_to_the_list(as_):
    answer = as_("viewer").get(reverse("admin:batching_request_new"), {"top": "3", "model": "m"})

    assert (answer.status_code, answer.url) == (302, reverse(LIST) + "?model=m")
    assert as_("nobody").get(reverse("admin:batching_request_new")).status_code == 403


def one_of_each():
    """A request that every filter below means, and one that none does."""
    account = an_account("theirs")
    place = a_destination(name="hook", project=a_project("mine"))
    submission = Submission.objects.create(project=a_project("mine"))
    mine = a_request(
        custom_id="mine", batch=a_batch(lane=a_lane("m-1", account=account)), project=a_project("mine"),
        destination=place, submission=submission, state="failed",
    )  # fmt: skip
    a_request(custom_id="other", project=a_project(), batch=a_batch())
    long_ago = timezone.now() - timedelta(days=3)
    Request.objects.filter(custom_id="other").update(created_at=long_ago)
    return mine


def day_ago() -> str:
    return f"{timezone.now() - timedelta(days=1):%Y-%m-%dT%H:%M:%S}"


FILTERS = {
    "state": lambda row: {"state__exact": "failed"},
    "outcome": lambda row: {"outcome": "failed"},
    "project": lambda row: {"project__id__exact": row.project_id},
    "model": lambda row: {"model": "m-1"},
    "lane": lambda row: {"lane": row.lane_id},
    "account": lambda row: {"account": row.lane.account_id},
    "batch": lambda row: {"batch": row.batch.key},
    "submission": lambda row: {"submission": row.submission.key},
    "destination": lambda row: {"destination": "hook"},
    "time": lambda row: {"from": day_ago()},
    "several": lambda row: {"model": "m-1", "outcome": "failed", "from": day_ago(), "q": "mi*"},
    "of-a-submission": lambda row: {"submission": row.submission.key, "model": "m-1"},
}


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_finds_what_it_means(as_, name):
    row = one_of_each()

    assert listed(as_("viewer"), **FILTERS[name](row))[0] == ["mine"]


@pytest.mark.parametrize("address", [{"from": "nonsense"}, {"to": "2026-99-99T00:00"}, {"top": "x", "before": "-1", "model": "no such"}])  # fmt: skip
def test_an_address_that_means_nothing_lists_nothing_and_breaks_nothing(as_, address):
    a_request()

    assert listed(as_("viewer"), **address)[0] == []


def test_a_moment_of_another_zone_stands_in_the_form_as_utc(as_):
    a_request()
    address = {"from": "2026-11-21T01:00:00+02:00"}

    page = as_("viewer").get(reverse(LIST), address).content.decode()

    assert 'value="2026-11-20T23:00:00"' in page


def test_a_look_that_takes_too_long_says_how_far_it_came(as_, monkeypatch):
    monkeypatch.setattr(keyset, "_FIRST_WINDOW", 1)
    monkeypatch.setattr(keyset, "_LOOK_S", -1.0)
    a_request(custom_id="wanted", lane=a_lane("rare"))
    a_request()
    client = as_("viewer")

    found, page = listed(client, model="rare")
    content = client.get(reverse(LIST), {"model": "rare"}).content

    assert (found, page.page.looked_to) == ([], Request.objects.latest("pk").pk)
    assert follow(client, page.older_url)[0] == ["wanted"]
    assert b"No index serves these filters together" in content


@pytest.mark.parametrize(
    ("given", "query", "served"),
    [
        ({}, "", True),
        ({"state__exact": "failed"}, "", True),
        ({"batch": "7", "model": "m"}, "", True),
        ({"batch": "bat_01"}, "", False),
        ({"state__exact": "failed", "project__id__exact": "1"}, "", False),
        ({"outcome": "succeeded"}, "", False),
        ({"model": "m"}, "an exact id", True),
        ({"model": "m"}, "beginning*", False),
        ({}, "beginning*", True),
    ],
    ids=str,
)
def test_only_what_an_index_orders_is_read_without_windows(given, query, served):
    assert request_reading.is_served(given, query, Request.objects.none()) is served


def test_a_stretch_of_time_is_a_stretch_of_ids(db):
    rows = [a_request() for _ in range(9)]
    began = timezone.now() - timedelta(days=9)
    for number, row in enumerate(rows):
        Request.objects.filter(pk=row.pk).update(created_at=began + timedelta(days=number))
    days = [f"{began + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}" for day in (2.5, 4.5)]
    place = keyset.Place(top=rows[-1].pk)

    low, high = request_reading.span_of({"from": days[0], "to": days[1]}, place)

    assert rows[2].pk < low <= rows[3].pk
    assert rows[4].pk <= high < rows[6].pk


def test_the_size_of_a_page_is_remembered_list_by_list(as_):
    for _ in range(25):
        a_request()
    client = as_("viewer")

    assert len(client.get(reverse(LIST), {"size": "20"}).context["cl"].result_list) == 20
    assert len(client.get(reverse(LIST)).context["cl"].result_list) == 20
    assert client.get(reverse("admin:batching_batch_changelist")).context["cl"].list_per_page == 20
    assert len(client.get(reverse(LIST), {"size": "50"}).context["cl"].result_list) == 25
