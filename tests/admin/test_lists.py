"""Lists: what they cost, what their search finds, and what they never show."""

from __future__ import annotations

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from batching.admin import rows
from batching.lifecycle import move
from batching.models import Account, ApiKey, Submission
from delivery.models import Attempt
from tests.batching.rows import a_batch, a_destination, a_lane, a_project, a_request, an_account


def fill(count: int) -> None:
    """Rows of every kind, ``count`` of each."""
    place = a_destination()
    for number in range(count):
        batch = a_batch(last_error="e" * 5000, provider_object={"x": "y"})
        submission = Submission.objects.create(project=a_project())
        request = a_request(batch=batch, submission=submission, destination=place)
        Attempt.objects.create(
            request=request, destination=a_destination(), number=1, outcome="gone"
        )
        ApiKey.issue(a_project(), f"key {number}")
        an_account(f"account {number}")
        move(request, "cancel", reason="not wanted")


LISTS = (
    "batching_batch", "batching_request", "batching_submission", "batching_lane",
    "batching_destination", "batching_account", "batching_apikey", "delivery_attempt",
    "django_fsm_log_statelog",
)  # fmt: skip


def queries_of(client, url) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured]


@pytest.mark.parametrize("page", LISTS)
def test_a_list_costs_the_same_for_few_rows_and_many(as_, page):
    client = as_("root")
    url = reverse(f"admin:{page}_changelist")
    fill(2)
    client.get(url)  # content types are looked up once a process
    few = queries_of(client, url)
    fill(6)

    many = queries_of(client, url)

    assert len(many) == len(few) <= 11


@pytest.mark.parametrize("page", LISTS)
def test_no_list_counts_a_whole_table(as_, page):
    client = as_("root")
    fill(2)

    counting = [
        sql
        for sql in queries_of(client, reverse(f"admin:{page}_changelist"))
        if sql.count("COUNT(*)") > sql.count("LIMIT 10001") + sql.count("LIMIT 2001")
    ]

    assert counting == []


def test_a_long_list_says_so_and_counts_no_further(as_, monkeypatch):
    monkeypatch.setattr(rows, "MOST_COUNTED", 3)
    for _ in range(5):
        a_request()

    page = as_("viewer").get(reverse("admin:batching_request_changelist")).content.decode()

    assert "3+ requests" in page
    assert page.count('name="_selected_action"') == 0  # a viewer has nothing to select for


def test_lists_leave_big_columns_where_they_are(as_):
    fill(1)
    client = as_("viewer")

    sql = " ".join(queries_of(client, reverse("admin:batching_batch_changelist")))

    assert '"batching_batch"."state"' in sql
    assert '"batching_batch"."last_error"' not in sql
    assert '"batching_batch"."provider_object"' not in sql


def found(client, page, term, **filters):
    answer = client.get(reverse(f"admin:{page}_changelist"), {"q": term, **filters})
    return [str(row) for row in answer.context["cl"].result_list]


def test_requests_are_found_by_id_by_its_beginning_and_by_key(as_):
    rows_ = [a_request(custom_id=name) for name in ("order-1", "order-10", "Order-2", "other")]
    client = as_("viewer")

    assert found(client, "batching_request", "order-1") == ["order-1"]
    assert sorted(found(client, "batching_request", "order-*")) == ["order-1", "order-10"]
    assert found(client, "batching_request", rows_[3].key) == ["other"]
    assert found(client, "batching_request", "rder") == []
    assert found(client, "batching_request", "%") == []


def test_an_id_that_looks_like_a_key_is_found_all_the_same(as_):
    a_request(custom_id="req_mine")

    assert found(as_("viewer"), "batching_request", "req_mine") == ["req_mine"]


def test_requests_of_one_batch_and_one_submission_are_filtered(as_):
    submission = Submission.objects.create(project=a_project())
    mine = a_request(batch=a_batch(), submission=submission)
    a_request(batch=a_batch())
    client = as_("viewer")

    for name in (mine.batch_id, f"#{mine.batch_id}", mine.batch.key):
        assert found(client, "batching_request", "", batch=name) == [mine.custom_id]
    assert found(client, "batching_request", "", submission=submission.key) == [mine.custom_id]
    assert found(client, "batching_request", "", batch="nonsense") == []


def test_batches_are_found_by_number_key_and_the_providers_id(as_):
    batch, _other = a_batch(provider_batch_id="batch_abc"), a_batch()
    client = as_("viewer")

    for term in (str(batch.pk), f"#{batch.pk}", batch.key, batch.key[:-1], "batch_abc"):
        assert str(batch) in found(client, "batching_batch", term)
    assert found(client, "batching_batch", "batch_ab") == []


def test_moves_are_found_by_the_key_of_their_row(as_):
    mine, other = a_request(), a_request()
    for row in (mine, other):
        move(row, "cancel", reason="not wanted")
    client = as_("viewer")

    page = client.get(reverse("admin:django_fsm_log_statelog_changelist"), {"q": mine.key})

    assert [log.object_id for log in page.context["cl"].result_list] == [mine.pk]
    kinds = ContentType.objects.get_for_model(type(mine))
    assert {log.content_type for log in page.context["cl"].result_list} == {kinds}


def test_attempts_are_found_by_request_and_destination(as_):
    request, place = a_request(), a_destination(name="hook")
    attempt = Attempt.objects.create(request=request, destination=place, number=1, outcome="gone")
    Attempt.objects.create(
        request=a_request(), destination=a_destination(), number=2, outcome="gone"
    )
    client = as_("viewer")

    for filters in (
        {"q": request.key}, {"q": "", "destination": place.key}, {"q": "", "destination": "hook"},
    ):  # fmt: skip
        term = filters.pop("q")
        assert found(client, "delivery_attempt", term, **filters) == [str(attempt)]


@pytest.mark.parametrize("page", ["batching_batch", "batching_request", "delivery_attempt"])
def test_hot_lists_can_not_be_sorted_by_other_columns(as_, page):
    fill(1)

    answer = as_("root").get(reverse(f"admin:{page}_changelist"), {"o": "4"})

    assert answer.context["cl"].queryset.query.order_by == ("-pk",)


def test_a_lane_tells_how_many_batches_are_under_way(as_):
    lane = a_lane()
    for state in ("building", "processing", "delivered", "failed"):
        a_batch(lane=lane, state=state)

    answer = as_("viewer").get(reverse("admin:batching_lane_changelist"))

    assert [row.open_count for row in answer.context["cl"].result_list] == [2]


def test_a_destinations_query_is_not_shown_to_those_who_may_not_change_it(as_):
    place = a_destination(url="https://r.example/hook?token=hidden-token")
    client = as_("viewer")

    for url in (
        reverse("admin:batching_destination_changelist"),
        reverse("admin:batching_destination_change", args=[place.pk]),
    ):
        assert b"hidden-token" not in client.get(url).content


def test_no_page_shows_an_accounts_key(as_):
    account = an_account(api_key="sk-very-secret-1234")
    client = as_("root")

    for url in (
        reverse("admin:batching_account_changelist"),
        reverse("admin:batching_account_change", args=[account.pk]),
    ):
        content = client.get(url).content
        assert b"very-secret" not in content
        assert "…1234".encode() in content
    assert Account.objects.get().api_key == "sk-very-secret-1234"


@pytest.mark.parametrize(
    "page", ["delivery_attempt", "batching_submission", "django_fsm_log_statelog"]
)
def test_long_lists_go_on_by_row_id(as_, monkeypatch, page):
    monkeypatch.setattr(rows.OurAdmin, "list_per_page", 2)
    fill(3)
    client, url = as_("root"), reverse(f"admin:{page}_changelist")
    first = client.get(url).context["cl"]

    with CaptureQueriesContext(connection) as captured:
        second = client.get(url + first.older_url).context["cl"]

    assert second.result_list[0].pk < first.result_list[-1].pk
    assert not [query for query in captured if "OFFSET" in query["sql"]]
