"""Scenarios 25 and 26: receivers that fail, tries that follow, and results that are sent again."""

from __future__ import annotations

from functools import partial

import pytest

from delivery import dispatch
from delivery.webhook import WebhookSender, WebhookTerms
from tests.scenarios.client import first_error, path_of
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.receiver import Reply, refusing_url

INVALID = Reply(status=400, body=b'{"code":"INVALID"}')


def test_a_refusing_receiver_is_tried_again_later(api, road, receiver):
    """Scenario 25. House: the next try comes by itself, with the same id and the same bytes."""
    receiver.answer("/results", INVALID, Reply())
    api.taken("w1", to=receiver.url())

    road.run()
    failed = api.request("w1")
    road.later(seconds=6)
    road.run()

    assert (failed["state"], failed["error"]) == ("processed", None)
    (attempt,) = failed["attempts"]
    assert (attempt["outcome"], attempt["status"]) == ("http_status", 400)
    assert failed["next_delivery_at"] == attempt["next_at"]
    assert attempt["answer"] == '{"code":"INVALID"}'
    delivered = api.request("w1")
    assert [a["outcome"] for a in delivered["attempts"]] == ["delivered", "http_status"]
    assert path_of(delivered)[-4:] == ["delivering", "processed", "delivering", "delivered"]
    first, second = receiver.calls
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert api.only_batch()["state"] == "delivered"


def test_a_server_error_and_a_refused_connection_wait_for_their_next_try(api, road, receiver):
    """Scenario 25."""
    receiver.answer("/broken", Reply(status=503))
    api.taken("broken", to=receiver.url("/broken"))
    api.taken("refused", to=refusing_url())

    road.run()

    rows = {name: api.request(name) for name in ("broken", "refused")}
    tried = {name: [a["outcome"] for a in row["attempts"]] for name, row in rows.items()}
    assert tried == {"broken": ["http_status"], "refused": ["connection_error"]}
    assert {row["state"] for row in rows.values()} == {"processed"}
    assert all(row["next_delivery_at"] and row["error"] is None for row in rows.values())
    assert "Next: try 2 at delivery, at" in rows["refused"]["why"]
    assert api.only_batch()["state"] == "delivering"


def test_a_silent_receiver_costs_one_timeout(api, road, receiver, monkeypatch):
    """Scenario 25, with a shorter patience than the product's 15 seconds."""
    hurried = partial(WebhookSender, terms=WebhookTerms(timeout_s=0.3))
    monkeypatch.setattr(dispatch, "WebhookSender", hurried)
    receiver.answer("/silent", Reply(hangs=True))
    api.taken("silent", to=receiver.url("/silent"))
    api.taken("well", to=receiver.url())

    road.run()

    row = api.request("silent")
    assert [(a["outcome"], a["status"]) for a in row["attempts"]] == [("timeout", None)]
    assert row["state"] == "processed"
    assert api.request("well")["state"] == "delivered"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_never_followed(api, road, receiver, status):
    """Scenario 25: no body goes where it was not asked to go, by whatever method."""
    receiver.answer("/moved", Reply(status=status, headers={"location": receiver.url("/new")}))
    api.taken("moved", to=receiver.url("/moved"))

    road.run()

    (attempt,) = api.request("moved")["attempts"]
    assert (attempt["outcome"], attempt["status"]) == ("redirect", status)
    assert [(call.method, call.path) for call in receiver.calls] == [("POST", "/moved")]


@pytest.mark.slow
def test_after_ten_tries_over_three_days_it_waits_for_a_person(api, road, receiver):
    """Scenario 25. House: delivery_failed, and the request's own outcome is still a success."""
    receiver.answer("/dead", Reply(status=500))
    api.taken("dead", to=receiver.url("/dead"))
    road.run()

    for _ in range(12):
        road.later(hours=29)
        road.run()

    row = api.request("dead")
    assert (row["state"], row["outcome"], row["error"]) == ("delivery_failed", "succeeded", None)
    assert [a["number"] for a in row["attempts"]] == list(range(10, 0, -1))
    assert row["next_delivery_at"] is None
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert api.only_batch()["state"] == "delivery_failed"


def test_one_dead_receiver_holds_nobody_else_up(api, road, receiver):
    receiver.answer("/dead", Reply(status=500))
    for n in range(5):
        api.taken(f"dead-{n}", to=receiver.url("/dead"))
        api.taken(f"well-{n}", to=receiver.url())

    road.run()

    assert receiver.custom_ids("/results") == [f"well-{n}" for n in range(5)]


@pytest.fixture
def dead_and_well(api, road, receiver, settings):
    """Deliver one result, and give one up because its address may not be reached."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["localhost"]
    api.taken("dead", to=receiver.url("/dead"))
    api.taken("well", to=receiver.url().replace("127.0.0.1", "localhost"))
    road.run()
    assert api.states() == {"dead": "delivery_failed", "well": "delivered"}
    assert api.only_batch()["state"] == "partially_delivered"


@pytest.mark.usefixtures("dead_and_well")
def test_a_result_given_up_is_sent_again_when_someone_asks(api, road, receiver, settings):
    """Scenario 26. House: the batch follows once the result is delivered."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]

    answer = api.post("/api/requests/dead/redeliver")
    road.run()

    assert answer.status_code == 202
    assert answer.json() == {
        "id": api.request("dead")["id"],
        "custom_id": "dead",
        "state": "processed",
        "message": "Redelivery triggered",
    }
    row = api.request("dead")
    assert row["state"] == "delivered"
    assert [a["outcome"] for a in row["attempts"]] == ["delivered", "blocked_address"]
    assert [a["is_replay"] for a in row["attempts"]] == [True, False]
    (call,) = (call for call in receiver.calls if call.path == "/dead")
    assert call.headers["x-replay"] == "1"
    assert path_of(api.only_batch())[-2:] == ["delivering", "delivered"]


@pytest.mark.usefixtures("dead_and_well")
def test_a_delivered_result_may_be_sent_once_more_under_its_id(api, road, receiver):
    """Scenario 26: the receiver can tell a replay, for the message's id is the same."""
    assert api.post("/api/requests/well/redeliver").status_code == 202

    road.run()

    first, second = (call for call in receiver.calls if call.path == "/results")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert len(api.request("well")["attempts"]) == 2


def test_nothing_is_redelivered_while_its_batch_delivers(api, road, receiver):
    """Scenario 26."""
    receiver.answer("/broken", Reply(status=500))
    api.taken("broken", to=receiver.url("/broken"))
    api.taken("well", to=receiver.url())
    road.run()
    assert api.only_batch()["state"] == "delivering"

    refused = api.post("/api/requests/well/redeliver")

    assert refused.status_code == 422
    assert first_error(refused)["code"] == "invalid_batch_state"
    detail = "Batch cannot redeliver while it is currently delivering"
    assert first_error(refused)["detail"] == detail


def test_a_bad_end_may_be_told_once_more_too(api, road, receiver, provider):
    """Scenario 26. House: a failed request has an envelope, so there is something to send again."""
    misbehave(provider, fault("fail_line", status=400))
    api.taken("bad", to=receiver.url())
    road.run()

    answer = api.post("/api/requests/bad/redeliver")
    road.run()

    assert (answer.status_code, answer.json()["state"]) == (202, "failed")
    first, second = receiver.calls
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert api.only_batch()["state"] == "failed"


def test_what_has_no_result_is_not_redelivered(api, receiver):
    """Scenario 26: a pending one is refused, an unknown one is not there."""
    api.taken("pending", to=receiver.url())

    refused = api.post("/api/requests/pending/redeliver")

    assert (refused.status_code, first_error(refused)["code"]) == (422, "invalid_state")
    unknown = api.post("/api/requests/nobody/redeliver")
    assert (unknown.status_code, first_error(unknown)["code"]) == (404, "not_found")
