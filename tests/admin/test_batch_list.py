"""The list of batches: what its rows say, its quick filters, its pages, and how it renews itself in place."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from batching.admin import batch_rows
from batching.audit import record
from batching.lifecycle import Actor
from batching.models import ApiKey, Batch, Submission, Turnaround
from tests.admin.conftest import person
from tests.batching.rows import a_batch, a_lane, a_project, a_request

LIST = reverse("admin:batching_batch_changelist")
LIVE = reverse("admin:batching_batch_live")
HTMX = {"HX-Request": "true"}
HOUR = timedelta(hours=1)


def listed(client, **filters) -> set[int]:
    return {batch.pk for batch in client.get(LIST, filters).context["cl"].result_list}


def cell(name: str, batch: Batch) -> str:
    now = timezone.now()
    return str(batch_rows.live(name, batch, batch_rows.figures_of([batch], now)[batch.pk], now))


def processing(**fields) -> Batch:
    facts = {"state": "processing", "create_started_at": timezone.now() - HOUR, "request_count": 10}
    return a_batch(**(facts | fields))


# What rows say


@pytest.mark.django_db
def test_a_batch_beyond_its_lanes_usual_time_says_so_in_words():
    lane = a_lane()
    Turnaround.objects.create(lane=lane, spans_s=[60], p50_s=60, p90_s=300, batches=5)

    late = cell("state", processing(lane=lane))
    in_time = cell("state", processing(lane=lane, create_started_at=timezone.now()))

    assert "late (usually up to 5 min)" in late
    assert "late" not in in_time


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("lines", {"provider_completed": 6, "provider_failed": 1}, "6 ok, 1 failed, 3 left"),
        ("lines", {"answered_count": 9, "provider_completed": 6}, "9 ok, 0 failed, 1 left"),
        ("tokens", {"token_estimate": 1_234_567}, "1.23 M"),
        (
            "tokens",
            {"input_tokens": 900, "output_tokens": 100, "cost_nano": 5_000_000},
            "1,000",
        ),
        ("tokens", {"input_tokens": 900, "cost_nano": 5_000_000}, "$ 0.005"),
        ("state", {"paused_at": timezone.now()}, "paused"),
        ("state", {"tries": 2}, "try 3"),
        ("next", {"provider_expires_at": timezone.now() + HOUR}, "b-late"),
        ("next", {"deliver_by": timezone.now() + 5 * HOUR}, "due"),
    ],
)
def test_a_cell_says_what_is_known(name, fields, said):
    assert said in cell(name, processing(**fields))


@pytest.mark.django_db
def test_a_batch_in_line_says_its_place():
    lane = a_lane()
    a_batch(lane=lane, state="uploaded")

    assert "2 of 2 in line" in cell("next", a_batch(lane=lane, state="waiting_for_capacity"))


@pytest.mark.django_db
def test_a_batch_names_whose_requests_it_holds():
    batch = processing()
    for name in ("shop", "crm"):
        a_request(batch=batch, project=a_project(name))

    found = batch_rows.figures_of([batch], timezone.now())[batch.pk]

    assert found.projects == ("shop", "crm")


def test_a_page_of_any_size_asks_the_same_questions(as_):
    client = as_("viewer")

    def questions() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert client.get(LIST).status_code == 200
        return len(asked)

    a_request(batch=processing())
    a_batch(state="waiting_for_capacity", lane=a_lane())
    questions()
    few = questions()
    for _ in range(12):
        a_request(batch=processing())
        a_batch(state="waiting_for_capacity", lane=a_lane())

    assert questions() == few <= 12


# Quick filters


def test_quick_filters_keep_what_they_name(as_):
    soon, old = timezone.now() + HOUR, timezone.now() - timedelta(days=9)
    waiting = a_batch(state="waiting_for_capacity")
    running = processing(provider_expires_at=soon)
    failed = a_batch(state="failed", next_attempt_at=None)
    a_batch(state="failed", next_attempt_at=None, state_changed_at=old)
    paused = a_batch(state="uploaded", paused_at=timezone.now())
    trying = a_batch(state="uploading", tries=3)
    a_batch(state="delivered", next_attempt_at=None)
    client = as_("viewer")

    assert listed(client, quick="active") == {waiting.pk, running.pk, paused.pk, trying.pk}
    assert listed(client, quick="waiting") == {waiting.pk, paused.pk, trying.pk}
    assert listed(client, quick="attention") == {failed.pk, paused.pk, trying.pk}
    assert listed(client, quick="expiring") == {running.pk}
    assert len(listed(client, quick="nonsense")) == 7


def test_mine_are_those_that_i_acted_on_and_those_of_keys_that_i_issued(as_):
    client = as_("viewer")
    touched, sent, other = (processing() for _ in range(3))
    key, _ = ApiKey.issue(a_project(), "mine")
    me, someone = Actor(name="the-viewer", user_id=1), Actor(name="someone", user_id=2)
    record("batch.pause", by=me, row=touched)
    record("batch.pause", by=someone, row=other)
    record("apikey.add", by=me, row=key)
    a_request(batch=sent, submission=Submission.objects.create(project=a_project(), api_key=key))

    assert listed(client, quick="mine") == {touched.pk, sent.pk}


def test_a_quick_filter_that_holds_leads_back_to_all(as_):
    page = as_("viewer").get(LIST, {"quick": "active", "lane": "3"}).content.decode()

    assert '<a href="?lane=3" aria-current="true">Active</a>' in page
    assert "?lane=3&amp;quick=waiting" in page


# Pages


def test_the_size_of_a_page_is_remembered(as_):
    for _ in range(25):
        processing()
    client = as_("viewer")

    assert len(listed(client)) == 20
    assert len(listed(client, size="50")) == 25
    assert len(listed(client)) == 25
    assert len(listed(client, size="7")) == 25


def test_pages_go_on_by_row_id_and_keep_the_filter(as_):
    for _ in range(25):
        processing()
    client = as_("viewer")

    first = client.get(LIST, {"quick": "active"})
    older = first.context["cl"].older_url

    assert "quick=active" in older
    assert len(client.get(LIST + older).context["cl"].result_list) == 5


# Renewal


def test_visible_rows_are_written_anew_where_they_stand(as_):
    client, batch = as_("viewer"), processing()
    live = client.get(LIST).context["cl"].live_query
    Batch.objects.filter(pk=batch.pk).update(provider_completed=7, provider_failed=0)

    text = client.get(LIVE + live, headers=HTMX).content.decode()

    assert f'<div id="batch-{batch.pk}-lines" hx-swap-oob="true">' in text
    assert "7 ok, 0 failed, 3 left" in text
    assert 'hx-trigger="every 5s [!document.hidden]"' in text


def test_new_batches_are_told_and_move_nothing(as_):
    client = as_("viewer")
    processing()
    live = client.get(LIST, {"quick": "active"}).context["cl"].live_query
    late = [processing(), a_batch(state="failed", next_attempt_at=None)]

    text = client.get(LIVE + live, headers=HTMX).content.decode()

    assert "1 new" in text
    assert f"batch-{late[0].pk}-" not in text


@pytest.mark.parametrize(("state", "status"), [("processing", 200), ("delivered", 286)])
def test_an_older_page_whose_batches_have_ended_is_asked_for_no_more(as_, state, status):
    client, batch = as_("viewer"), processing(state=state)
    query = {"ids": batch.pk, "top": batch.pk, "before": batch.pk + 1}

    assert client.get(LIVE, query, headers=HTMX).status_code == status


def test_renewal_is_a_page_for_those_without_htmx_and_nothing_for_strangers(as_, client):
    viewer, query = as_("viewer"), {"ids": "1,x,99999999999999999999", "quick": "active"}

    assert viewer.get(LIVE, query).url == f"{LIST}?quick=active"
    assert viewer.get(LIVE, query, headers=HTMX).status_code == 200
    client.force_login(person("nobody"))
    assert client.get(LIVE, query, headers=HTMX).status_code == 403


def test_renewal_costs_the_same_for_one_row_and_many(as_):
    client = as_("viewer")

    def questions() -> int:
        live = client.get(LIST).context["cl"].live_query
        with CaptureQueriesContext(connection) as asked:
            assert client.get(LIVE + live, headers=HTMX).status_code == 200
        return len(asked)

    a_request(batch=processing())
    questions()
    few = questions()
    for _ in range(12):
        a_request(batch=processing())

    assert questions() == few <= 9


def test_an_empty_list_teaches_the_next_step(as_):
    client = as_("viewer")

    assert "Batches are made of requests" in client.get(LIST).content.decode()
    assert (
        '<a class="b-link" href="?">Show all</a>'
        in client.get(LIST, {"quick": "mine"}).content.decode()
    )
    runs = client.get(reverse("admin:batching_run_changelist")).content.decode()
    assert "With everything that matches" in runs
