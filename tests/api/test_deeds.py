"""Doing something to a request or a batch: what is done, what is refused, and as whom."""

from __future__ import annotations

import pytest
from django.utils import timezone
from django_fsm_log.models import StateLog

from batching.lifecycle import move
from batching.models import ApiKey, AuditEntry, Request
from tests.api.conftest import first_error
from tests.api.test_reads import HOOK, answered, in_batch, send

LINE = b'{"id":"1","response":{"status_code":200,"body":{}},"error":null}'


def test_cancelled_request_is_told_as_the_keys_doing(api):
    send(api, "a/b")

    answer = api.post("/api/requests/a/b/cancel")

    row = Request.objects.get()
    assert answer.status_code == 202
    assert answer.json() == {
        "id": row.key,
        "custom_id": "a/b",
        "state": "cancelled",
        "message": "Request cancelled",
    }
    log = StateLog.objects.filter(object_id=row.pk, transition="cancel").get()
    assert f"[by key {ApiKey.objects.get().prefix}]" in log.description


def test_cancelled_request_can_be_retried(api):
    send(api, "a")
    api.post("/api/requests/a/cancel")

    answer = api.post("/api/requests/a/retry")

    assert (answer.status_code, answer.json()["state"]) == (202, "pending")


def test_delivered_result_is_delivered_again(api):
    send(api, "a", delivery_config=HOOK)
    row = answered(Request.objects.get(), LINE)
    move(row, "deliver", reason="x")
    move(row, "delivered", reason="x", delivered_at=timezone.now())

    answer = api.post("/api/requests/a/redeliver")

    assert answer.status_code == 202
    assert answer.json()["state"] == "processed"
    assert answer.json()["message"] == "Redelivery triggered"


@pytest.mark.parametrize("deed", ["redeliver", "retry"])
def test_pending_request_is_refused_as_invalid_state(api, deed):
    send(api, "a", delivery_config=HOOK)

    answer = api.post(f"/api/requests/a/{deed}")

    assert (answer.status_code, first_error(answer)["code"]) == (422, "invalid_state")


def test_request_of_a_delivering_batch_is_refused_as_invalid_batch_state(api):
    send(api, "a", delivery_config=HOOK)
    in_batch(answered(Request.objects.get(), LINE), state="delivering")

    answer = api.post("/api/requests/a/redeliver")

    assert (answer.status_code, first_error(answer)["code"]) == (422, "invalid_batch_state")
    detail = "Batch cannot redeliver while it is currently delivering"
    assert first_error(answer)["detail"] == detail


def test_building_batch_is_sealed(api):
    send(api, "a")
    batch = in_batch(Request.objects.get(), request_count=1)

    answer = api.post(f"/api/batches/{batch.key}/seal")

    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["state"]) == (batch.key, "uploading")


def test_building_batch_is_cancelled_with_its_requests(api):
    send(api, "a")
    batch = in_batch(Request.objects.get())

    assert api.post(f"/api/batches/{batch.key}/cancel").json()["state"] == "cancelled"
    assert Request.objects.get().state == "cancelled"


@pytest.mark.parametrize("deed", ["seal", "restart", "redeliver", "redeliver-failed", "cancel"])
def test_refused_batch_deed_is_409_with_the_state(api, deed):
    send(api, "a")
    batch = in_batch(Request.objects.get(), state="downloading")

    answer = api.post(f"/api/batches/{batch.key}/{deed}")

    assert (answer.status_code, first_error(answer)["code"]) == (409, "invalid_batch_state")
    assert first_error(answer)["meta"] == {"state": "downloading"}


@pytest.mark.parametrize("deed", ["seal", "cancel", "restart", "redeliver", "redeliver-failed"])
def test_shared_batch_is_not_one_projects_to_steer(api, stranger, deed):
    send(api, "a")
    send(stranger, "b")
    batch = in_batch(*Request.objects.all())

    answer = api.post(f"/api/batches/{batch.key}/{deed}")

    assert (answer.status_code, first_error(answer)["code"]) == (409, "shared_batch")
    batch.refresh_from_db()
    assert batch.state == "building"


@pytest.mark.parametrize("deed", ["unpause", "nonsense"])
def test_unknown_deeds_are_404(api, deed):
    assert api.post(f"/api/batches/bat_x/{deed}").status_code == 404


def test_deeds_are_posted(api):
    answer = api.get("/api/batches/bat_x/seal")

    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert first_error(answer)["code"] == "method_not_allowed"


def ended(api, custom_id: str, **facts):
    """Return a failed batch with one request, which has ended."""
    send(api, custom_id, delivery_config=HOOK)
    batch = in_batch(Request.objects.get(), state="failed")
    type(batch).objects.filter(pk=batch.pk).update(next_attempt_at=None)
    Request.objects.filter(batch=batch).update(state="failed", **facts)
    return batch


def test_an_ended_batch_is_deleted(api):
    batch = ended(api, "a")

    answer = api.send("DELETE", f"/api/batches/{batch.key}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert api.get("/api/requests/a").status_code == 404
    assert AuditEntry.objects.get(action="batch.remove").object_key == batch.key


def test_undelivered_results_are_deleted_only_when_that_is_confirmed(api):
    batch = ended(api, "a", due_at=timezone.now())

    refused = api.send("DELETE", f"/api/batches/{batch.key}")
    confirmed = api.send("DELETE", f"/api/batches/{batch.key}?undelivered=true")

    assert (refused.status_code, first_error(refused)["code"]) == (409, "undelivered")
    assert confirmed.status_code == 204
    assert not Request.objects.exists()


def test_a_batch_under_way_is_not_deleted(api):
    send(api, "a")
    batch = in_batch(Request.objects.get(), state="processing")

    answer = api.send("DELETE", f"/api/batches/{batch.key}?undelivered=true")

    assert (answer.status_code, first_error(answer)["code"]) == (409, "invalid_batch_state")
    assert Request.objects.exists()
