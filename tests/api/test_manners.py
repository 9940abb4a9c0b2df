"""How fast a key may go, what it may ask for, and calls that are made again."""

from __future__ import annotations

import gzip
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from batching.api import pace
from batching.models import Allowance, ApiKey, KeptAnswer, Request, Submission
from tests.api.conftest import Api, first_error, ndjson, new_request

BULK = "/api/requests/bulk"


def bound(client, project, **limits):
    """Return a client whose key has these limits."""
    key, secret = ApiKey.issue(project, "bound")
    for name, value in limits.items():
        setattr(key, name, value)
    key.save()
    return Api(client, secret)


# Pace


def test_calls_beyond_a_minutes_worth_are_told_when_to_go_on(client, project):
    api = bound(client, project, calls_per_minute=3)

    answers = [api.get("/api/requests") for _ in range(4)]

    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert first_error(answers[3])["code"] == "rate_limited"
    assert 1 <= int(answers[3]["Retry-After"]) <= 20
    assert [a["RateLimit-Remaining"] for a in answers] == ["2", "1", "0", "0"]
    assert {a["RateLimit-Limit"] for a in answers} == {"3"}
    assert 0 < int(answers[3]["RateLimit-Reset"]) <= 60


def test_a_bucket_fills_again_with_time(project):
    key, _ = ApiKey.issue(project, "k")
    take = {"kind": "calls", "count": 1, "per_minute": 60}

    assert all(Allowance.take(key, **take, now_s=1_000.0) for _ in range(60))
    assert not Allowance.take(key, **take, now_s=1_000.5)
    assert Allowance.take(key, **take, now_s=1_001.0)
    assert not Allowance.take(key, **take, now_s=1_001.5)


def test_processes_share_one_bucket_but_for_a_seconds_worth_each(project, monkeypatch):
    key, _ = ApiKey.issue(project, "k")
    monkeypatch.setattr(pace, "time", SimpleNamespace(time=lambda: 1_000.0))
    given = 0

    for calls in (395, 400, 5):
        pace.forget()  # another process: it holds nothing of what the last one took
        given += sum(pace._spend(key, "calls", 600)[1] for _ in range(calls))

    assert given == 595  # the first took five that it never handed out


def test_without_a_limit_nothing_is_counted(api):
    answer = api.get("/api/requests")

    assert not answer.has_header("RateLimit-Limit")
    assert not Allowance.objects.exists()


def test_the_installations_limit_holds_for_keys_without_one(client, project, monkeypatch):
    monkeypatch.setattr(settings, "BATCHER_CALLS_PER_MINUTE", 1)
    api, free = bound(client, project), bound(client, project, calls_per_minute=0)

    assert [api.get("/api/requests").status_code for _ in range(2)] == [200, 429]
    assert [free.get("/api/requests").status_code for _ in range(2)] == [200, 200]


def test_an_upload_that_began_is_stored_whole_and_the_next_one_waits(client, project):
    api = bound(client, project, lines_per_minute=2)

    first = api.post(BULK, ndjson(*(new_request(f"r-{n}") for n in range(4))))
    then = api.post(BULK, ndjson(new_request("r-9")))
    single = api.post("/api/requests", new_request("r-9"))

    assert first.json()["accepted"] == 4
    assert (then.status_code, first_error(then)["code"]) == (429, "rate_limited")
    assert 60 < int(then["Retry-After"]) <= 90
    assert single.status_code == 429


# What a key may ask for


@pytest.mark.parametrize(
    ("limits", "changes", "code", "pointer"),
    [
        ({"allowed_models": ["gpt-4o*"]}, {"body": {"model": "o3"}}, "model", "/body/model"),
        ({"allowed_endpoints": ["/v1/embeddings"]}, {}, "endpoint", "/url"),
        *(
            ({"allowed_destinations": [allowed]}, {"delivery_config": asked}, "destination",
             "/delivery_config")
            for allowed, asked in [
                ("https://a.example", {"type": "webhook", "webhook_url": "https://a.example.evil/x"}),
                ("https://*.a.example", {"type": "webhook", "webhook_url": "https://b.example/.a.example"}),
                ("https://a.example", {"type": "webhook", "webhook_url": "http://a.example/"}),
                ("https://a.example", {"type": "webhook", "webhook_url": "https://a.example:8443/"}),
                ("queue:ours", {"type": "rabbitmq", "rabbitmq_queue": "theirs"}),
                ("queue:*", {"type": "destination", "name": "crm"}),
            ]
        ),
    ],
)  # fmt: skip
def test_a_bound_key_is_refused_what_is_not_named(client, project, limits, changes, code, pointer):
    api = bound(client, project, **limits)

    one = api.post("/api/requests", new_request("a", **changes))
    many = api.post(BULK, ndjson(new_request("b", **changes)))

    error = first_error(one)
    assert (one.status_code, error["code"]) == (403, f"{code}_not_allowed")
    assert error["source"]["pointer"] == pointer
    line = many.json()["errors"][0]
    assert (line["code"], line["pointer"], line["line"]) == (f"{code}_not_allowed", pointer, 1)
    assert not Request.objects.exists()


@pytest.mark.parametrize(
    ("limits", "config"),
    [
        ({"allowed_models": ["x", "gpt-4o*"]}, {"type": "none"}),
        ({"allowed_endpoints": ["/v1/resp*"]}, {"type": "none"}),
        ({"allowed_destinations": ["queue:ours"]}, {"type": "none"}),
        ({"allowed_destinations": ["queue:o*"]}, {"type": "rabbitmq", "rabbitmq_queue": "ours"}),
        (
            {"allowed_destinations": ["https://*.a.example"]},
            {"type": "webhook", "webhook_url": "https://x.a.example:443/any?q"},
        ),
    ],
)
def test_a_bound_key_may_ask_for_what_is_named(client, project, limits, config):
    api = bound(client, project, **limits)

    assert api.post("/api/requests", new_request(delivery_config=config)).status_code == 202


# Two secrets


def test_the_old_secret_opens_until_the_overlap_ends(client, project):
    key, old = ApiKey.issue(project, "k")
    new = key.rotate(overlap=timedelta(hours=1), now=timezone.now())

    assert [Api(client, s).get("/api/requests").status_code for s in (old, new)] == [200, 200]
    assert new[:16] == old[:16] == key.prefix


def test_the_old_secret_opens_nothing_after_the_overlap(client, project):
    key, old = ApiKey.issue(project, "k")
    new = key.rotate(overlap=timedelta(hours=1), now=timezone.now() - timedelta(hours=2))

    assert [Api(client, s).get("/api/requests").status_code for s in (old, new)] == [401, 200]


def test_a_second_rotation_closes_the_first_secret_at_once(client, project):
    key, first = ApiKey.issue(project, "k")
    for _ in range(2):
        key.rotate(overlap=timedelta(hours=1), now=timezone.now())

    assert Api(client, first).get("/api/requests").status_code == 401


# Calls made again


def again(api, path, body, name="once", **headers):
    return api.post(path, body, **{"Idempotency-Key": name, **headers})


def test_the_same_call_is_answered_alike_and_done_once(api):
    lines = ndjson(new_request("a"), new_request("b"))

    first, second = (again(api, BULK, lines) for _ in range(2))

    assert (second.status_code, second.content) == (first.status_code, first.content) != (200, b"")
    assert second["Idempotent-Replayed"] == "true"
    assert not first.has_header("Idempotent-Replayed")
    assert Submission.objects.count() == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/requests", new_request("b")),
        ("/api/requests?", new_request("a", priority=1)),
        (BULK, new_request("a")),
        ("/api/requests/a/cancel", b""),
    ],
)
def test_another_call_under_the_same_name_is_refused(api, path, body):
    again(api, "/api/requests", new_request("a"))

    other = again(api, path, body)

    assert (other.status_code, first_error(other)["code"]) == (422, "idempotency_key_reused")


def test_a_deed_is_done_once(api):
    api.post("/api/requests", new_request("a"))

    answers = [again(api, "/api/requests/a/cancel", b"ignored") for _ in range(2)]
    anew = again(api, "/api/requests/a/cancel", b"ignored", name="twice")

    assert [a.status_code for a in answers] == [202, 202]
    assert anew.status_code == 422


def test_names_belong_to_their_key(api, stranger):
    again(api, "/api/requests", new_request("a"))

    assert again(stranger, "/api/requests", new_request("b")).status_code == 202


def test_a_failed_call_leaves_nothing_behind(api):
    assert again(api, "/api/requests", new_request("a", method="GET")).status_code == 422

    assert again(api, "/api/requests", new_request("a")).status_code == 202


def test_a_call_under_way_is_to_be_awaited(api):
    key = ApiKey.objects.get()
    KeptAnswer.objects.create(key=key, name="once", token="another")

    answer = again(api, "/api/requests", new_request("a"))

    assert (answer.status_code, first_error(answer)["code"]) == (409, "idempotency_in_flight")
    assert answer["Retry-After"] == "1"
    assert not Request.objects.exists()


@pytest.mark.parametrize("status", [None, 202])
def test_a_name_is_free_again_when_its_call_died_or_its_day_is_over(api, status):
    key = ApiKey.objects.get()
    began = timezone.now() - (timedelta(minutes=16) if status is None else timedelta(hours=25))
    KeptAnswer.objects.create(key=key, name="once", token="t", status=status, began_at=began)

    answer = again(api, "/api/requests", new_request("a"))

    assert (answer.status_code, answer.has_header("Idempotent-Replayed")) == (202, False)


def test_kept_answers_go_after_a_day(api):
    again(api, "/api/requests", new_request("a"))

    assert KeptAnswer.objects.prune(timezone.now() + timedelta(hours=23)) == 0
    assert KeptAnswer.objects.prune(timezone.now() + timedelta(hours=25)) == 1


def test_a_gzipped_call_is_repeated_as_it_was_sent(api):
    body = gzip.compress(ndjson(new_request("a")), mtime=0)

    answers = [again(api, BULK, body, **{"Content-Encoding": "gzip"}) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert answers[1].has_header("Idempotent-Replayed")


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "é"])
def test_a_wrong_name_is_refused(api, name):
    answer = again(api, "/api/requests", new_request("a"), name=name)

    assert (answer.status_code, first_error(answer)["code"]) == (400, "invalid_idempotency_key")


@pytest.mark.django_db(transaction=True)
def test_ten_at_once_under_one_name_are_done_once(project):
    from django.test import Client

    _, secret = ApiKey.issue(project, "k")
    statuses, together = [], threading.Barrier(10)

    def send():
        together.wait(10)
        answer = again(Api(Client(), secret), BULK, ndjson(new_request("a")))
        statuses.append((answer.status_code, answer.has_header("Idempotent-Replayed")))
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(statuses) == 10
    assert statuses.count((202, False)) == 1
    assert {status for status, _ in statuses} <= {202, 409}
    assert Submission.objects.count() == 1


# A submission in parts


def test_an_upload_may_go_on_with_an_earlier_submission(api, stranger):
    first = api.post(BULK, ndjson(new_request("a"), {"wrong": 1})).json()
    path = f"{BULK}?submission={first['submission']}"

    second = api.post(path, ndjson(new_request("a"), new_request("b"))).json()
    whole = api.get(f"/api/submissions/{first['submission']}").json()

    assert (second["accepted"], second["duplicates"], second["rejected"]) == (1, 1, 0)
    assert (whole["accepted"], whole["duplicates"], whole["rejected"]) == (2, 1, 1)
    assert whole["progress"]["total"] == 2
    assert stranger.post(path, ndjson(new_request("c"))).status_code == 404
