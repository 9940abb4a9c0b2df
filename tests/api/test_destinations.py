"""Destinations over HTTP: made, changed, stopped, tried, deleted, and their secrets shown once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from batching.models import ApiKey, AuditEntry, Destination, Project, Request
from delivery import dispatch
from tests.api.conftest import Api, first_error, new_request
from tests.batching.rows import a_request
from tests.delivery.receivers import answering, hanging
from tests.delivery.results import a_result, listening

HOOK = {"type": "webhook", "webhook_url": "https://example.com/results"}
QUEUE = {"type": "rabbitmq", "rabbitmq_queue": "results"}
PLACES = "/api/destinations"


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


def made(api, name="crm", config=None, **terms):
    answer = api.post(PLACES, {"name": name, "delivery_config": config or HOOK, **terms})
    assert answer.status_code == 201, answer.content
    return answer.json()


def at(receiver):
    return {"type": "webhook", "webhook_url": receiver.url("/hook")}


def pointers(answer):
    assert answer.status_code == 422, answer.content
    return {e["source"].get("pointer", "") for e in answer.json()["errors"]}


def test_a_new_destination_shows_its_secret_once_and_its_headers_never(api):
    made_one = made(api, headers={"Authorization": "Bearer hush"}, max_in_flight=4)
    path = f"{PLACES}/{made_one['id']}"

    shown = api.get(path)

    assert made_one["secret"].startswith("whsec_")
    assert "secret" not in shown.json()
    assert shown.json()["secret_hint"] == f"…{made_one['secret'][-4:]}"
    assert shown.json()["headers"] == {"Authorization": "***"}
    assert (shown.json()["state"], shown.json()["max_in_flight"]) == ("open", 4)
    assert b"hush" not in shown.content + api.get(PLACES).content


def test_secrets_and_headers_are_encrypted_and_masked_in_the_log(api, django_db_blocker):
    from django.db import connection

    secret = made(api, headers={"X-Token": "hush-hush"})["secret"]

    with connection.cursor() as cursor:
        cursor.execute("SELECT secret, headers FROM batching_destination")
        assert not {secret, "hush-hush"} & set(" ".join(cursor.fetchone()).split())
    entry = AuditEntry.objects.get(action="destination.add")
    assert (entry.after["secret"], entry.after["headers"]) == ("***", "***")


def test_a_repeated_call_never_brings_a_secret_back(api):
    headers = {"Idempotency-Key": "once"}
    body = {"name": "crm", "delivery_config": HOOK}
    api.post(PLACES, body, **headers)

    again = api.post(PLACES, body, **headers)

    assert "/name" in pointers(again)
    assert b"whsec_" not in again.content


def test_a_request_may_name_it(api):
    made(api)

    api.post("/api/requests", new_request(delivery_config={"type": "destination", "name": "crm"}))

    assert Request.objects.get().destination.name == "crm"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"delivery_config": {"type": "none"}}, "/delivery_config/type"),
        (
            {"delivery_config": {**HOOK, "webhook_url": "http://example.com/"}},
            "/delivery_config/webhook_url",
        ),
        (
            {"delivery_config": {**HOOK, "webhook_url": "https://10.0.0.1/"}},
            "/delivery_config/webhook_url",
        ),
        (
            {"delivery_config": {**HOOK, "webhook_url": "https://a:b@c.de/"}},
            "/delivery_config/webhook_url",
        ),
        (
            {"delivery_config": {**HOOK, "webhook_url": "https://c.de:25/"}},
            "/delivery_config/webhook_url",
        ),
        ({"headers": {"Host": "x"}}, "/headers"),
        ({"headers": {"Webhook-Id": "x"}}, "/headers"),
        ({"headers": {"x-batcher-a": "x"}}, "/headers"),
        ({"headers": {"x-a": "b\r\nc: d"}}, "/headers"),
        ({"headers": {"x-a": 5}}, "/headers/..."),
        ({"delivery_config": QUEUE, "headers": {"x-a": "b"}}, "/headers"),
        ({"retry_delays_s": []}, "/retry_delays_s"),
        ({"retry_delays_s": [0, -1]}, "/retry_delays_s"),
        ({"retry_delays_s": ["1"]}, "/retry_delays_s"),
        ({"timeout_s": 0}, "/timeout_s"),
        ({"max_in_flight": 0}, "/max_in_flight"),
        ({"max_in_flight": 1.5}, "/max_in_flight"),
        ({"max_per_second": -1}, "/max_per_second"),
        ({"max_inline_bytes": 5}, "/max_inline_bytes"),
        ({"secret": "whsec_x"}, "/secret"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(api, settings, changes, pointer):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["receiver:9000"]
    answer = api.post(PLACES, {"name": "crm", "delivery_config": HOOK, **changes})

    assert any(p.startswith(pointer.removesuffix("/...")) for p in pointers(answer))
    assert not Destination.objects.exists()


def test_a_name_and_a_place_are_had_once(api):
    made(api)

    assert pointers(api.post(PLACES, {"name": "crm", "delivery_config": QUEUE})) == {"/name"}
    assert pointers(api.post(PLACES, {"name": "other", "delivery_config": HOOK})) == {""}


def test_a_change_keeps_what_is_not_given_and_merges_headers(api):
    path = f"{PLACES}/{made(api, headers={'X-A': '1', 'X-B': '2'}, timeout_s=5)['id']}"
    elsewhere = {**HOOK, "webhook_url": "https://example.com/elsewhere"}

    headers = {"x-a": None, "X-C": "3"}
    answer = api.send("PATCH", path, {"headers": headers, "delivery_config": elsewhere})

    assert answer.status_code == 200, answer.content
    assert answer.json()["delivery_config"] == elsewhere
    assert Destination.objects.get().own_headers == {"X-B": "2", "X-C": "3"}
    assert answer.json()["timeout_s"] == 5
    entry = AuditEntry.objects.get(action="destination.change")
    assert {"headers", "url"} <= set(entry.after)


def test_a_change_is_checked_like_a_new_one(api):
    made(api, "other", QUEUE)
    path = f"{PLACES}/{made(api)['id']}"

    assert pointers(api.send("PATCH", path, {"name": "other"})) == {"/name"}
    assert pointers(api.send("PATCH", path, {"timeout_s": 1000})) == {"/timeout_s"}
    error = first_error(api.send("PATCH", path, {"delivery_config": QUEUE}))
    assert error["code"] == "type_is_fixed"


def test_a_rotated_secret_is_shown_once_and_the_old_one_signs_for_a_while(api):
    one = made(api)
    key, old = one["id"], one["secret"]

    answer = api.post(f"{PLACES}/{key}/rotate-secret", {"overlap_hours": 1})

    row = Destination.objects.get()
    left = row.previous_secret_until - timezone.now()
    assert (answer.json()["secret"], row.previous_secret) == (row.secret, old)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    api.post(f"{PLACES}/{key}/rotate-secret", {"overlap_hours": 0})
    row.refresh_from_db()
    assert (row.previous_secret, row.previous_secret_until) == ("", None)


@pytest.mark.django_db(transaction=True)
def test_what_is_due_while_paused_or_disabled_is_held_and_sent_afterwards(api):
    with listening(answering("204 No Content")) as receiver:
        path = f"{PLACES}/{made(api, config=at(receiver))['id']}"
        due = {"due_at": timezone.now() - timedelta(minutes=1)}
        result = a_result(Destination.objects.get(), project=Project.objects.get(), **due)
        assert api.post(f"{path}/pause", {"reason": "it moves"}).json()["state"] == "paused"
        assert dispatch.send_due() == 0
        Destination.objects.update(disabled_at=timezone.now())
        assert api.post(f"{path}/resume").json()["state"] == "disabled"
        assert dispatch.send_due() == 0
        assert api.get(path).json()["health"]["waiting"] == 1
        assert api.post(f"{path}/enable").json()["state"] == "open"
        assert dispatch.send_due() == 1

    result.refresh_from_db()
    assert result.state == "delivered"
    health = api.get(path).json()["health"]
    assert (health["waiting"], health["recent_tries"]) == (0, 1)
    assert health["last_success_at"]


def test_stopping_and_starting_is_refused_when_there_is_nothing_to_do(api):
    path = f"{PLACES}/{made(api)['id']}"
    api.post(f"{path}/pause")

    for deed in ("pause", "enable"):
        error = first_error(api.post(f"{path}/{deed}"))
        assert (error["status"], error["code"]) == ("422", "invalid_state")
    shown = api.get(path).json()
    assert "by key bm_live_" in shown["stop_reason"]
    assert first_error(api.post(f"{path}/pause", {"reason": 5}))["source"]["pointer"] == "/reason"


def test_a_request_for_a_paused_or_disabled_destination_is_taken_and_says_that_it_is_held(api):
    made(api)
    Destination.objects.update(disabled_at=timezone.now(), stop_reason="410 Gone")
    to_it = {"type": "destination", "name": "crm"}

    assert api.post("/api/requests", new_request(delivery_config=to_it)).status_code == 202

    Request.objects.update(state="processed", due_at=timezone.now(), settled_at=timezone.now())
    why = api.get("/api/requests/r-1").json()["why"]
    assert "held: its destination is disabled: 410 Gone" in why


@pytest.mark.django_db(transaction=True)
def test_a_ping_goes_the_way_of_results_and_tells_what_came_of_it(api):
    with listening(answering("202 Accepted", body=b"thanks")) as receiver:
        one = made(api, config=at(receiver), headers={"Authorization": "Bearer hush"})
        api.post(f"{PLACES}/{one['id']}/pause")

        told = api.post(f"{PLACES}/{one['id']}/ping").json()

    (request,) = receiver.requests
    Webhook(one["secret"]).verify(request.body, request.headers)
    assert request.headers["authorization"] == "Bearer hush"
    assert json.loads(request.body)["type"] == "ping"
    assert (told["outcome"], told["status"], told["answer"]) == ("delivered", 202, "thanks")
    assert (told["address"], told["duration_s"] > 0) == ("127.0.0.1", True)
    assert AuditEntry.objects.filter(action="destination.ping", reason="delivered").exists()


@pytest.mark.django_db(transaction=True)
def test_a_ping_is_bounded_and_guarded(api, settings):
    with listening(hanging) as receiver:
        slow = made(api, config=at(receiver), timeout_s=0.2)
        assert api.post(f"{PLACES}/{slow['id']}/ping").json()["outcome"] == "timeout"
        settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = []
        shut = api.post(f"{PLACES}/{slow['id']}/ping").json()

    assert shut["outcome"] == "blocked_address"
    assert len(receiver.requests) == 1


def test_a_deleted_destination_is_gone_and_leaves_its_name_and_place(api):
    path = f"{PLACES}/{made(api, headers={'X-A': 'hush'})['id']}"

    assert api.send("DELETE", path).status_code == 204

    assert api.get(path).status_code == 404
    assert api.get(PLACES).json()["data"] == []
    gone = Destination.objects.get()
    assert (gone.secret, gone.headers, gone.name) == ("", "", "")
    assert made(api)["id"] != gone.key


def test_a_destination_with_results_to_deliver_is_not_deleted(api):
    path = f"{PLACES}/{made(api)['id']}"
    a_request(destination=Destination.objects.get(), state="processed", due_at=timezone.now())

    answer = api.send("DELETE", path)

    assert (answer.status_code, first_error(answer)["code"]) == (422, "destination_in_use")
    assert api.get(path).status_code == 200


def test_another_project_has_none_of_them(api, stranger):
    path = f"{PLACES}/{made(api)['id']}"

    assert stranger.get(PLACES).json()["data"] == []
    for method, deed in (
        *(("GET", ""), ("PATCH", ""), ("DELETE", "")),
        *(("POST", f"/{d}") for d in ("rotate-secret", "pause", "resume", "enable", "ping")),
    ):
        assert stranger.send(method, path + deed, {}).status_code == 404


def test_lists_are_by_state_and_name(api):
    made(api, "a", QUEUE)
    path = f"{PLACES}/{made(api, 'b')['id']}"
    api.post(f"{path}/pause")

    assert [d["name"] for d in api.get(PLACES).json()["data"]] == ["b", "a"]
    assert [d["name"] for d in api.get(f"{PLACES}?state=paused").json()["data"]] == ["b"]
    assert [d["name"] for d in api.get(f"{PLACES}?name=a").json()["data"]] == ["a"]
    assert api.get(f"{PLACES}?state=x").status_code == 400


def test_a_bound_key_neither_makes_nor_redirects_nor_touches_what_it_may_not_reach(api, client):
    project = Project.objects.get(name="ours")
    key, secret = ApiKey.issue(project, "bound")
    key.allowed_destinations = ["https://*.example.com", "name:crm"]
    key.save()
    bound, evil = Api(client, secret), {**HOOK, "webhook_url": "https://evil.test/"}
    crm = f"{PLACES}/{made(api)['id']}"
    other = f"{PLACES}/{made(api, 'other', QUEUE)['id']}"

    refused = [
        bound.post(PLACES, {"name": "x", "delivery_config": evil}),
        bound.send("PATCH", crm, {"delivery_config": evil}),
        bound.send("PATCH", crm, {"name": "stolen"}),
        bound.post(f"{other}/ping"),
        bound.send("DELETE", other),
    ]

    assert [r.status_code for r in refused] == [403] * 5
    assert first_error(refused[0])["code"] == "destination_not_allowed"
    assert bound.send("PATCH", crm, {"timeout_s": 3}).status_code == 200


def test_what_speaks_against_a_destination_is_forgotten_when_it_is_enabled(api):
    from delivery.models import DestinationHealth

    path = f"{PLACES}/{made(api)['id']}"
    place = Destination.objects.get()
    later = timezone.now() + timedelta(minutes=9)
    DestinationHealth.objects.create(
        destination=place, openings=3, open_until=later, failures_in_row=40, last_failure="410 Gone"
    )
    Destination.objects.update(disabled_at=timezone.now(), stop_reason="410 Gone")
    assert api.get(path).json()["health"]["failures_in_row"] == 40

    health = api.post(f"{path}/enable").json()["health"]

    assert (health["failures_in_row"], health["sentence"]) == (0, "")
    assert health["last_failure"] == "410 Gone"
