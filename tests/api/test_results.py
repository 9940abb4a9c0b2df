"""Pulling results: every one, in order, none skipped, and waiting for the next."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from batching import endings
from batching.api import waiting
from batching.api.results_views import NEXT_CURSOR
from batching.lifecycle import move
from batching.models import Answer, ApiKey, Request
from delivery import results
from delivery.results import passed, place_of
from tests.api.conftest import Api, first_error
from tests.api.test_reads import send


def settle(custom_id, *, seconds_ago=10.0, text="x"):
    """Take a request to its good end at some time."""
    row = Request.objects.get(custom_id=custom_id)
    at = timezone.now() - timedelta(seconds=seconds_ago)
    move(row, "submitted", reason="accepted")
    line = {"id": "1", "custom_id": row.key, "response": {"body": text}, "error": None}
    Answer.objects.create(request=row, attempt=row.attempt, line=json.dumps(line).encode())
    return move(row, "answered", reason="answered", settled_at=at)


def pull(api, query=""):
    """Return the custom_ids of the results pulled, and the cursor to go on with."""
    answer = api.get(f"/api/results?{query}")
    lines = b"".join(answer.streaming_content).splitlines()
    return [json.loads(line)["custom_id"] for line in lines], answer.get(NEXT_CURSOR, "")


def test_a_line_is_what_a_webhook_would_get(api):
    send(api, "a", metadata={"k": "v"})
    settle("a", text="hello")

    answer = api.get("/api/results")

    assert answer["Content-Type"] == "application/x-ndjson"
    (line,) = b"".join(answer.streaming_content).splitlines()
    result = json.loads(line)
    assert result["response"] == {"body": "hello"}
    assert (result["custom_id"], result["outcome"], result["metadata"]) == (
        *("a", "succeeded", {"k": "v"}),
    )


def test_pages_follow_the_order_in_which_requests_ended(api):
    send(api, *"abcde")
    for at, name in enumerate("dbeac"):
        settle(name, seconds_ago=100 - at)

    found, cursor = [], ""
    for _ in range(3):
        page, cursor = pull(api, f"limit=2&cursor={cursor}")
        found += page

    assert found == list("dbeac")
    assert pull(api, f"cursor={cursor}") == ([], cursor)


def test_requests_settled_together_are_cut_between_pages_without_loss(api):
    send(api, *"abc")
    at = timezone.now() - timedelta(seconds=5)
    for name in "cab":
        settle(name)
    Request.objects.update(settled_at=at)

    first, cursor = pull(api, "limit=2")

    assert (first, pull(api, f"cursor={cursor}")[0]) == (["a", "b"], ["c"])


@pytest.mark.parametrize("fraction", ["%f", "00.000"], ids=["some fraction", "a whole second"])
def test_requests_that_the_database_timed_are_cut_between_pages_without_loss(
    api, monkeypatch, fraction
):
    monkeypatch.setattr(results, "_MARGIN", timedelta(seconds=-60))
    template = endings.SQLITE_NOW.replace("%%f", fraction.replace("%", "%%"))
    monkeypatch.setattr(endings, "SQLITE_NOW", template)
    send(api, *"abcde")
    endings.end(Request.objects.all(), "cancel", code="c", message="m", now=timezone.now())

    found, cursor = [], ""
    for _ in range(3):
        page, cursor = pull(api, f"limit=2&cursor={cursor}")
        found += page

    assert found == list("abcde")


def test_bad_ends_are_results_too(api):
    send(api, "a")
    api.post("/api/requests/a/cancel")
    Request.objects.update(settled_at=timezone.now() - timedelta(seconds=5))

    lines = b"".join(api.get("/api/results").streaming_content).splitlines()

    assert [json.loads(line)["outcome"] for line in lines] == ["cancelled"]


def test_another_project_pulls_nothing_of_mine(api, stranger):
    send(api, "a")
    settle("a")

    assert pull(stranger) == ([], "")


@pytest.mark.parametrize("query", ["wait=61", "wait=x", "limit=1001", "cursor=MQ"])
def test_wrong_parameters(api, query):
    answer = api.get(f"/api/results?{query}")

    assert (answer.status_code, first_error(answer)["code"]) == (400, "invalid_parameter")


@pytest.mark.django_db(transaction=True)
def test_waiting_ends_with_the_first_result(api, monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.02)
    send(api, "a", "b")
    settle("a")
    found, cursor = pull(api)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(pull_and_close, api, f"wait=60&cursor={cursor}")
        settle("b")

        assert (found, waits.result(30)[0]) == (["a"], ["b"])


def pull_and_close(api, query):
    try:
        return pull(api, query)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_waiting_ends_empty_when_the_time_is_up(api, stranger):
    send(stranger, "theirs")
    settle("theirs")

    assert pull(api, "wait=1") == ([], "")


def test_too_many_waiting_calls_are_answered_at_once(api, settings):
    settings.BATCHER_WAITERS = 0

    answer = api.get("/api/results?wait=60")

    assert (answer.status_code, answer["Retry-After"]) == (200, "5")


def test_one_question_tells_which_places_have_news(api, stranger, django_assert_num_queries):
    for client, names in ((api, "ab"), (stranger, "cd")):
        send(client, *names)
        settle(names[0], seconds_ago=60)
    a, c = (Request.objects.get(custom_id=name) for name in "ac")
    settle("d", seconds_ago=5)
    places = [(a.project_id, None), (a.project_id, place_of(a)), (c.project_id, place_of(c))]

    with django_assert_num_queries(2 if connection.vendor == "postgresql" else 1):
        found = passed(places, now=timezone.now())

    assert found == [places[0], places[2]]


@pytest.mark.service
@pytest.mark.django_db(transaction=True)
def test_result_behind_an_open_transaction_is_not_skipped(postgresql_url, client, project):
    """SQLite has one writer at a time, so there no transaction can be overtaken."""
    api = Api(client, ApiKey.issue(project, "k")[1])
    send(api, "slow", "fast")
    is_open, may_commit = threading.Event(), threading.Event()

    def settle_slowly():
        with transaction.atomic():
            settle("slow", seconds_ago=0)
            is_open.set()
            may_commit.wait(20)
        connection.close()

    slow = threading.Thread(target=settle_slowly)
    slow.start()
    is_open.wait(20)
    settle("fast", seconds_ago=0)
    while_open = pull(api, "wait=1")[0]
    may_commit.set()
    slow.join()

    assert while_open == []
    assert sorted(pull(api, "wait=5")[0]) == ["fast", "slow"]
