"""The order of a lane over the API: move, promote, pause; lanes and accounts, and who may steer them."""

from __future__ import annotations

import pytest
from django.utils import timezone

from batching import admission
from batching.models import Account, ApiKey, AuditEntry, Batch, Capacity, Lane, Request
from tests.api.conftest import first_error
from tests.api.test_reads import in_batch, send
from tests.batching.rows import a_batch


@pytest.fixture
def batches(api):
    """Three batches that wait in one lane, each with a request of ours."""
    send(api, "a", "b", "c")
    fields = {"state": "uploaded", "request_count": 1, "next_attempt_at": timezone.now()}
    return [in_batch(row, **fields) for row in Request.objects.order_by("pk")]


def deed(api, batch, name, **body):
    return api.post(f"/api/batches/{batch.key}/{name}", {"reason": "she waits"} | body)


def order_of(api):
    line = api.get(f"/api/lanes/{Lane.objects.get().pk}").json()["line"]
    assert [waiter["place"] for waiter in line] == list(range(1, len(line) + 1))
    return [waiter["id"] for waiter in line]


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("move", {"to": "top"}, "cab"),
        ("priority", {"priority": 7}, "cab"),
        ("promote", {}, "cab"),
        ("move", {"before": "second"}, "acb"),
        ("pause", {}, "abc"),
    ],
)
def test_a_deed_changes_the_order_and_tells_the_place(api, batches, name, body, expected):
    if "before" in body:
        body = {"before": batches[1].key}

    answer = deed(api, batches[2], name, **body)

    keys = dict(zip("abc", [b.key for b in batches], strict=True))
    assert answer.status_code == 202, answer.content
    assert answer.json()["place"] == {"number": expected.index("c") + 1, "of": 3}
    assert order_of(api) == [keys[letter] for letter in expected]
    shown = api.get(f"/api/batches/{batches[2].key}").json()
    assert shown["place"] == answer.json()["place"]


def test_each_deed_is_in_the_audit_log_with_who_and_why(api, batches):
    deed(api, batches[0], "move", to="bottom")
    deed(api, batches[1], "priority", priority=3)
    deed(api, batches[2], "move", before=batches[0].key)
    deed(api, batches[2], "pause")

    entries = list(AuditEntry.objects.order_by("pk").values_list("action", "object_key", "after"))
    assert entries == [
        ("batch.move", batches[0].key, None),
        ("batch.priority", batches[1].key, {"priority": 3}),
        ("batch.move", batches[2].key, {"other": batches[0].key}),
        ("batch.pause", batches[2].key, None),
    ]
    who = set(AuditEntry.objects.values_list("actor", "reason"))
    assert who == {(f"key {ApiKey.objects.get().prefix}", "she waits")}


def test_a_paused_batch_says_who_paused_it_and_why(api, batches):
    shown = deed(api, batches[0], "pause").json()
    assert shown["pause_reason"] == f"by key {ApiKey.objects.get().prefix}: she waits"
    assert list(admission.next_up(timezone.now())) == batches[1:]

    why = api.get(f"/api/batches/{batches[0].key}").json()["why"]
    assert "paused: by key" in why
    assert deed(api, batches[0], "resume").json()["paused_at"] is None


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("resume", {}, "not_paused"),
        ("move", {"before": "itself"}, "same_batch"),
        ("promote", {}, "invalid_batch_state"),
        ("move", {"to": "top"}, "invalid_batch_state"),
    ],
)
def test_a_refusal_is_409_with_the_state(api, batches, name, body, code):
    if code == "invalid_batch_state":
        Batch.objects.filter(pk=batches[0].pk).delete()
        batches[0] = in_batch(Request.objects.first(), state="processing")
    body = {"before": batches[0].key} if "before" in body else body

    answer = deed(api, batches[0], name, **body)

    assert (answer.status_code, first_error(answer)["code"]) == (409, code)
    assert first_error(answer)["meta"] == {"state": batches[0].state}


@pytest.mark.parametrize(
    ("name", "body", "pointer"),
    [
        ("move", {}, "/to"),
        ("move", {"to": "middle"}, "/to"),
        ("move", {"to": "top", "before": "bat_x"}, "/to"),
        ("priority", {}, "/priority"),
        ("priority", {"priority": 101}, "/priority"),
        ("priority", {"priority": "high"}, "/priority"),
        ("pause", {"reason": ""}, "/reason"),
        ("pause", {"why": "x"}, "/why"),
    ],
)
def test_a_wrong_body_is_told_by_its_field(api, batches, name, body, pointer):
    answer = deed(api, batches[0], name, **body)

    assert (answer.status_code, first_error(answer)["code"]) == (422, "validation_error")
    assert first_error(answer)["source"]["pointer"] == pointer


@pytest.mark.parametrize(("name", "body"), [("move", {"to": "top"}), ("promote", {})])
def test_the_order_of_a_shared_account_is_an_operators(api, stranger, batches, name, body):
    answer = deed(api, batches[0], name, **body)

    assert (answer.status_code, first_error(answer)["code"]) == (409, "shared_account")
    assert deed(api, batches[0], "pause").status_code == 202
    assert deed(stranger, batches[0], "pause").status_code == 404


def test_a_batch_is_moved_before_none_that_is_not_there(api, batches):
    assert deed(api, batches[0], "move", before="bat_x").status_code == 404


def test_a_lane_is_paused_and_resumed(api, batches):
    path = f"/api/lanes/{Lane.objects.get().pk}"
    assert api.post(f"{path}/pause", {"reason": "costs"}).json()["state"] == "paused"

    assert list(admission.next_up(timezone.now())) == []

    assert first_error(api.post(f"{path}/pause"))["code"] == "already_paused"
    told = api.get(path).json()["line"][0]["wait_reason"]
    assert told == f"its lane is paused: by key {ApiKey.objects.get().prefix}: costs"
    assert api.post(f"{path}/resume").json()["state"] == "open"
    assert len(list(admission.next_up(timezone.now()))) == 3


def test_an_account_is_paused_and_resumed(api, batches):
    assert api.post("/api/accounts/main/pause").json()["state"] == "paused"
    assert list(admission.next_up(timezone.now())) == []
    assert first_error(api.post("/api/accounts/main/pause"))["meta"] == {"state": "paused"}
    assert api.post("/api/accounts/main/resume").json()["state"] == "open"
    actions = AuditEntry.objects.order_by("pk").values_list("action", "object_name")
    assert list(actions) == [("account.pause", "main"), ("account.resume", "main")]


@pytest.mark.parametrize("deed", ["pause", "resume", "freeze", "unfreeze"])
def test_what_is_shared_is_stopped_by_an_operator_only(api, stranger, batches, deed):
    paths = [f"/api/lanes/{Lane.objects.get().pk}/{deed}"]
    paths += [f"/api/accounts/main/{deed}"] if "freeze" not in deed else []
    for path in paths:
        assert first_error(api.post(path))["code"] == "shared_account"


def test_a_projects_own_account_is_its_own_to_stop(api, stranger, project):
    own = Account.objects.create(name="own one", kind="sandbox", project=project)
    lane = Lane.objects.create(account=own, model="m", endpoint="/v1/responses")

    assert stranger.get("/api/accounts/own%20one").status_code == 404
    assert stranger.get(f"/api/lanes/{lane.pk}").status_code == 404
    assert [a["name"] for a in stranger.get("/api/accounts").json()["data"]] == ["main"]
    assert api.post("/api/accounts/own%20one/pause").status_code == 200
    assert api.post(f"/api/lanes/{lane.pk}/pause").status_code == 200


def test_a_lane_shows_what_is_configured_learned_and_used(api, batches):
    Lane.objects.update(token_limit=1_000, max_batches_in_flight=4)
    Account.objects.update(max_creates_per_hour=9)
    facts = {"request_count": 30, "token_estimate": 400, "create_started_at": timezone.now()}
    a_batch(lane=Lane.objects.get(), state="processing", **facts)
    Capacity.objects.create(account=Account.objects.get(), model="gpt-4o-mini", learned_tokens=800)

    figures = api.get("/api/lanes").json()["data"][0]["figures"]

    tokens, oldest = figures.pop("tokens"), figures.pop("oldest_waiting_at")
    assert oldest.endswith("Z")
    assert [tokens[n] for n in ("configured", "learned", "limit", "source", "used")] == [
        *(1_000, 800, 800, "learned", 400)
    ]
    assert figures == {
        "lane_batches": {"used": 1, "limit": 4},
        "batches": {"used": 1, "limit": None},
        "requests": {"used": 30, "limit": None},
        "waiting_tokens": 0,
        "creates": {"used": 1, "limit": 9},
        "waiting": 3,
        "takes": None,
    }


def test_who_holds_a_lane_is_named_to_its_own_project_only(api, stranger, batches):
    held = in_batch(Request.objects.last(), state="processing", token_estimate=400)
    path = f"/api/lanes/{held.lane_id}"

    mine, theirs = (caller.get(path).json() for caller in (api, stranger))

    assert [h["id"] for h in mine["held_by"]] == [held.key]
    assert [h["id"] for h in theirs["held_by"]] == [None]
    assert {waiter["id"] for waiter in theirs["line"]} == {None}
    assert theirs["held_by"][0]["token_estimate"] == 400


def test_any_number_of_lanes_is_the_same_few_queries(api, django_assert_max_num_queries):
    account = Account.objects.get()
    for n in range(12):
        lane = Lane.objects.create(account=account, model=f"m-{n}", endpoint="/v1/responses")
        a_batch(lane=lane, state="processing", token_estimate=n)
    api.get("/api/lanes?limit=1")

    with django_assert_max_num_queries(7):
        data = api.get("/api/lanes?limit=100").json()["data"]

    assert sorted(row["figures"]["tokens"]["used"] for row in data) == list(range(12))


def test_learning_is_frozen_and_goes_on(api, batches):
    path = f"/api/lanes/{Lane.objects.get().pk}"

    assert api.post(f"{path}/freeze").json()["figures"]["tokens"]["is_frozen"] is True
    assert Capacity.objects.get().is_frozen
    assert api.post(f"{path}/unfreeze").json()["figures"]["tokens"]["is_frozen"] is False
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {
        *("lane.freeze", "lane.unfreeze")
    }


@pytest.mark.parametrize("lane_id", ["x", "0", "99999999999999999999", "²"])
def test_no_such_lane(api, lane_id):
    assert api.get(f"/api/lanes/{lane_id}").status_code == 404
