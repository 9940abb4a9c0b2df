"""Looking at requests, batches and submissions: whole, by pages, and only one's own."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from batching.lifecycle import Actor, move
from batching.models import Answer, Batch, Destination, Lane, Project, Request
from delivery.models import Attempt
from tests.api.conftest import first_error, ndjson, new_request

HOOK = {"type": "webhook", "webhook_url": "http://receiver:8080/in?token=t"}


def send(api, *custom_ids, **changes):
    lines = ndjson(*(new_request(custom_id, **changes) for custom_id in custom_ids))
    return api.post("/api/requests/bulk", lines, "application/x-ndjson").json()["submission"]


def in_batch(*requests, **fields):
    batch = Batch.objects.create(lane=Lane.objects.first(), **fields)
    Request.objects.filter(pk__in=[r.pk for r in requests]).update(batch=batch)
    return batch


def answered(row, line, **answer):
    """Take a request to its good end with this provider line."""
    now = timezone.now()
    move(row, "submitted", reason="accepted", now=now)
    Answer.objects.create(
        request=row, attempt=row.attempt, status_code=200, line=line, input_tokens=3, **answer
    )
    return move(row, "answered", reason="answered", now=now, settled_at=now)


def ids(page):
    return [row["custom_id"] for row in page["data"]]


def all_pages(api, path):
    pages, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{path}&cursor={cursor}" if cursor else path).json()
        pages.append(ids(page))
        cursor = page["next_cursor"]
    return pages


def test_pending_request_says_why_it_waits(api):
    send(api, "a", metadata={"k": "v"}, priority=5)

    shown = api.get("/api/requests/a").json()

    assert shown["state"] == "pending"
    assert "waits" in shown["why"]
    assert (shown["answer"], shown["error"], shown["usage"], shown["cost"]) == (None,) * 4
    assert (shown["metadata"], shown["priority"]) == ({"k": "v"}, 5)
    assert shown["delivery_config"] == {"type": "none"}
    assert [t["to_state"] for t in shown["transitions"]] == ["pending"]


def test_answered_request_shows_the_response_as_it_came(api):
    send(api, "a", delivery_config=HOOK)
    row = Request.objects.get()
    response = b'{"status_code":200,"body":{"x":"\\ud800 \xe2\x80\xa8 \\u0000","n":1.10}}'
    answered(row, b'{"id":"1","custom_id":"x","response":' + response + b',"error":null}')
    at = timezone.now()
    for number, outcome in ((1, "timeout"), (2, "delivered")):
        Attempt.objects.create(
            request=row,
            destination=row.destination,
            number=number,
            outcome=outcome,
            ended_at=at + timedelta(seconds=number),
        )

    answer = api.get("/api/requests/a")

    assert response in answer.content
    shown = answer.json()
    assert (shown["state"], shown["outcome"]) == ("processed", "succeeded")
    assert [a["outcome"] for a in shown["attempts"]] == ["delivered", "timeout"]
    assert shown["usage"]["input_tokens"] == 3
    assert shown["delivery_config"] == HOOK
    assert [t["transition"] for t in shown["transitions"]] == ["accept", "submitted", "answered"]


def test_failed_request_shows_its_error(api):
    send(api, "line", "ours")
    line, ours = Request.objects.order_by("pk")
    for row, code in ((line, "server_error"), (ours, "expired_at_provider")):
        move(row, "fail", reason="x", error_code=code, error_message="no")
    error = '{"code":"server_error","message":"é"}'
    Answer.objects.create(
        request=line, attempt=1, line=f'{{"response":null,"error":{error}}}'.encode()
    )

    assert api.get("/api/requests/line").json()["error"] == json.loads(error)
    assert api.get("/api/requests/ours").json()["error"] == {
        "code": "expired_at_provider",
        "message": "no",
    }


@pytest.mark.parametrize(
    "custom_id",
    [
        *("a/b", "a b", "漢字 🎉", "a?b#c%", "bulk", "x/cancel", "x/redeliver", "x/retry"),
        *("/a", "a/", "a\u2028b", "req_x"),
    ],
)
def test_any_custom_id_is_found(api, custom_id):
    send(api, custom_id)

    assert api.get(f"/api/requests/{quote(custom_id)}").json()["custom_id"] == custom_id


def test_request_is_found_by_our_id_too(api):
    sent = api.post("/api/requests", new_request("a")).json()

    assert api.get(f"/api/requests/{sent['id']}").json()["custom_id"] == "a"


@pytest.mark.parametrize("path", ["requests/none", "requests/%00", "batches/x", "batches/%00",
                                  "submissions/x", "submissions/%00", "requests/a/cancel"])  # fmt: skip
def test_what_is_not_there_is_404(api, path):
    answer = api.get(f"/api/{path}")

    assert (answer.status_code, first_error(answer)["code"]) == (404, "not_found")


def test_pages_are_complete_and_newest_first(api):
    names = [f"r{n}" for n in range(7)]
    send(api, *names)

    pages = all_pages(api, "/api/requests?limit=3")

    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == names[::-1]  # noqa: RUF017


def test_q_is_a_prefix_and_nothing_more(api):
    send(api, "in-1", "in-2", "In-3", "in", "out-in-4", "in%5", "in_6", "漢-1", "漢-2")

    assert sum(all_pages(api, "/api/requests?q=in-&limit=1"), []) == ["in-1", "in-2"]  # noqa: RUF017
    assert ids(api.get("/api/requests?q=in%25").json()) == ["in%5"]
    assert ids(api.get("/api/requests?q=in_").json()) == ["in_6"]
    assert ids(api.get(f"/api/requests?q={quote('漢')}").json()) == ["漢-1", "漢-2"]


def test_filters_of_requests(api):
    first = send(api, "a", "b")
    send(api, "c", body={"model": "other"})
    batch = in_batch(Request.objects.get(custom_id="b"))

    def found(query):
        return set(ids(api.get(f"/api/requests?{query}").json()))

    assert found(f"submission={first}") == {"a", "b"}
    assert found("model=other") == {"c"}
    assert found(f"batch={batch.key}") == {"b"}
    assert found(f"batch={batch.key}&state=processed") == set()
    assert found("state=pending") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=odd", "state"),
        ("limit=0", "limit"),
        ("limit=1e3", "limit"),
        ("cursor=%F0%9F", "cursor"),
        ("cursor=bm9wZQ", "cursor"),
        ("q=a&cursor=MQ", "cursor"),
        ("q=%00", "q"),
        ("stat=pending", "stat"),
    ],
)
def test_wrong_parameters_are_named(api, query, parameter):
    answer = api.get(f"/api/requests?{query}")

    assert (answer.status_code, first_error(answer)["code"]) == (400, "invalid_parameter")
    assert first_error(answer)["source"] == {"parameter": parameter}


def test_batches_are_seen_by_those_whose_requests_they_hold(api, stranger):
    send(api, "a")
    mine = in_batch(Request.objects.get(), state="processing", provider_total=5)
    Batch.objects.create(lane=mine.lane)

    shown = api.get("/api/batches").json()["data"]

    assert [b["id"] for b in shown] == [mine.key]
    assert shown[0]["provider_counts"]["total"] == 5
    assert stranger.get("/api/batches").json()["data"] == []
    assert stranger.get(f"/api/batches/{mine.key}").status_code == 404


def test_batch_shows_its_history_and_my_requests(api):
    send(api, "a", "b")
    batch = in_batch(*Request.objects.all())
    move(batch, "seal", reason="full", by=Actor(name="packing"))

    shown = api.get(f"/api/batches/{batch.key}").json()

    assert (shown["id"], shown["state"]) == (batch.key, "uploading")
    assert shown["requests"] == {"pending": 2}
    assert [(t["transition"], t["reason"]) for t in shown["transitions"]] == [
        ("seal", "full [by packing]")
    ]
    assert shown["why"]


def test_filters_of_batches(api):
    send(api, "a")
    batch = in_batch(Request.objects.get())

    for query, count in (
        *(("state=building", 1), ("state=failed", 0), ("model=gpt-4o-mini", 1), ("model=x", 0)),
        *(("url=/v1/responses", 1), ("account=main", 1), ("account=x", 0)),
    ):
        assert len(api.get(f"/api/batches?{query}").json()["data"]) == count, query
    assert batch.key


def test_submission_shows_how_far_it_is(api, stranger):
    key = send(api, "a", "b")

    shown = api.get(f"/api/submissions/{key}").json()

    assert (shown["id"], shown["accepted"], shown["requests"]) == (key, 2, {"pending": 2})
    assert [s["id"] for s in api.get("/api/submissions").json()["data"]] == [key]
    assert stranger.get(f"/api/submissions/{key}").status_code == 404


def test_lists_ask_the_database_once(api, django_assert_num_queries):
    send(api, *(f"r{n}" for n in range(20)), delivery_config=HOOK)
    in_batch(*Request.objects.all())
    api.get("/api/requests")  # the key is remembered from here on

    for path in ("requests", "requests?q=r&limit=5", "batches", "submissions"):
        with django_assert_num_queries(1):
            api.get(f"/api/{path}")


def test_a_detail_asks_the_same_few_questions_however_much_happened(
    api, django_assert_max_num_queries
):
    send(api, "a", delivery_config=HOOK)
    row = Request.objects.get()
    in_batch(row)
    destination = Destination.objects.get()
    Attempt.objects.bulk_create(
        Attempt(request=row, destination=destination, number=n, outcome="timeout")
        for n in range(30)
    )
    api.get("/api/requests/a")

    with django_assert_max_num_queries(8):
        assert len(api.get("/api/requests/a").json()["attempts"]) == 30


def test_secrets_of_a_destination_are_in_no_answer(api):
    send(api, "a", delivery_config=HOOK)
    secret = Destination.objects.get().secret

    shown = api.get("/api/requests/a").content + api.get("/api/requests").content

    assert secret
    assert secret.encode() not in shown
    assert Project.objects.count() == 1
