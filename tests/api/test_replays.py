"""Replays over HTTP: ordered, confirmed, watched, stopped; each project for itself."""

from __future__ import annotations

import pytest
from django.utils import timezone

from batching.models import ApiKey, AuditEntry, Request
from delivery import replays
from delivery.models import Replay
from tests.api.conftest import Api, first_error
from tests.batching.rows import a_batch, a_destination
from tests.delivery.results import a_result

PATH = "/api/replays"


def given_up(project, **fields):
    at = timezone.now()
    fields = {"state": "delivery_failed", "due_at": None, "dead_at": at, "settled_at": at} | fields
    return a_result(a_destination(project=project), project=project, **fields)


def order(api, **changes):
    return api.post(PATH, {"filter": {}, "reason": "it was down", **changes})


def test_failed_results_are_ordered_done_and_told(api, project):
    row = given_up(project)

    answer = order(api, filter={"destination": row.destination.key}, per_second=10)

    told = answer.json()
    assert answer.status_code == 202
    assert (told["state"], told["matched"], told["done"]) == ("running", None, 0)
    assert told["filter"] == {"destination": row.destination.key}
    replays.step_due(timezone.now())
    shown = api.get(f"{PATH}/{told['id']}").json()
    assert (shown["state"], shown["matched"], shown["done"]) == ("done", 1, 1)
    assert Request.objects.get().due_at is not None
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_key, entry.reason) == (
        "replay.start",
        told["id"],
        "it was down",
    )


WRONG = [
    ({"only_failed": False}, "/include_delivered"),
    ({"include_delivered": True}, "/include_delivered"),
    ({"reason": ""}, "/reason"),
    ({"per_second": 0}, "/per_second"),
    ({"per_second": 5000}, "/per_second"),
    ({"filter": {"state": "pending"}}, "/filter/state"),
    ({"filter": {"from": "2026-03-01T00:00:00"}}, "/filter/from"),
    ({"filter": {"colour": "red"}}, "/filter/colour"),
    ({"filter": {"destination": "nowhere"}}, "/filter/destination"),
    ({"filter": {"batch": "bat_1"}}, "/filter/batch"),
    ({"filter": {"model": "a\0b"}}, "/filter/model"),
]


@pytest.mark.parametrize(("changes", "pointer"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_order_is_refused_with_its_place_and_nothing_is_made(api, changes, pointer):
    answer = order(api, **changes)

    assert answer.status_code == 422
    assert first_error(answer)["source"]["pointer"] == pointer
    assert not Replay.objects.exists()


def test_what_was_delivered_goes_again_only_when_confirmed_and_narrowed(api, project):
    at = timezone.now()
    row = given_up(project, state="delivered", dead_at=None, delivered_at=at)
    both = {"only_failed": False, "include_delivered": True}

    assert first_error(order(api, **both))["code"] == "filter_missing"
    assert order(api, filter={"q": row.custom_id}, **both).status_code == 202
    replays.step_due(timezone.now())

    assert Request.objects.get().due_at is not None


def test_a_replay_is_stopped_once(api, project):
    given_up(project)
    path = f"{PATH}/{order(api).json()['id']}/stop"

    stopped, again = api.post(path), api.post(path)

    assert (stopped.status_code, stopped.json()["state"]) == (202, "stopped")
    assert (again.status_code, first_error(again)["code"]) == (422, "invalid_state")
    assert replays.step_due(timezone.now()) == 0
    assert AuditEntry.objects.filter(action="replay.stop").count() == 1


def test_a_strangers_key_neither_sees_nor_stops_nor_names_what_is_ours(api, stranger, project):
    row = given_up(project, batch=a_batch(state="delivered"))
    key = order(api, filter={"batch": row.batch.key}).json()["id"]

    assert stranger.get(PATH).json()["data"] == []
    assert stranger.get(f"{PATH}/{key}").status_code == 404
    assert stranger.post(f"{PATH}/{key}/stop").status_code == 404
    assert order(stranger, filter={"batch": row.batch.key}).status_code == 422
    assert [shown["id"] for shown in api.get(PATH).json()["data"]] == [key]
    assert api.get(f"{PATH}?state=done").json()["data"] == []
    assert api.get(f"{PATH}?state=nonsense").status_code == 400


def test_a_key_without_the_scope_is_refused(client, project):
    _, secret = ApiKey.issue(project, "reads", scopes=["read", "submit"])

    assert order(Api(client, secret)).status_code == 403
    assert Api(client, secret).get(PATH).status_code == 403


def test_given_up_results_of_a_delivering_batch_are_redelivered_at_once(api, project):
    batch = a_batch(state="delivering")
    dead = given_up(project, batch=batch)
    waiting = given_up(project, batch=batch, state="processed", dead_at=None)

    one = api.post(f"/api/requests/{dead.custom_id}/redeliver")
    other = api.post(f"/api/requests/{waiting.custom_id}/redeliver")
    rest = api.post(f"/api/batches/{batch.key}/redeliver-failed")

    assert (one.status_code, one.json()["state"]) == (202, "processed")
    assert (other.status_code, first_error(other)["code"]) == (422, "invalid_batch_state")
    assert (rest.status_code, first_error(rest)["code"]) == (409, "nothing_to_do")
    assert api.post(f"/api/batches/{batch.key}/redeliver").status_code == 409
