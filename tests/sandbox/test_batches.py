"""The sandbox's /v1/batches, driven by the official SDK."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import openai
import pytest

from tests.sandbox.driving import CHAT, FINAL, Driver, chat_line, chat_lines, until


def test_a_batch_goes_through_its_stages_and_ends_completed(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"validating_s": 4, "in_progress_s": 4, "finalizing_s": 4}})
    batch = drive.create(chat_lines(20))
    seen = [batch.status]

    def ended():
        seen.append(drive.client.batches.retrieve(batch.id).status)
        return seen[-1] in FINAL

    until(ended)
    assert list(dict.fromkeys(seen)) == ["validating", "in_progress", "finalizing", "completed"]


def test_a_new_batch_shows_every_member(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"validating_s": 1000}})
    batch = drive.create(chat_lines(1), metadata={"run": "42"})

    shown = sandbox.control("GET", f"/v1/batches/{batch.id}")

    nulls = [
        "model",
        "errors",
        "output_file_id",
        "error_file_id",
        "in_progress_at",
        "finalizing_at",
        "completed_at",
        "failed_at",
        "expired_at",
        "cancelling_at",
        "cancelled_at",
        "usage",
    ]
    assert shown == dict.fromkeys(nulls) | {
        "id": batch.id,
        "object": "batch",
        "endpoint": CHAT,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": "validating",
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": {"run": "42"},
    }
    assert batch.id.startswith("batch_")
    assert batch.expires_at - batch.created_at == 86_400


def test_a_completed_batch_counts_its_lines_and_sums_their_usage(drive: Driver):
    bad = chat_line("bad", temperature=5)

    batch = drive.run([*chat_lines(3), bad])

    rows = drive.answers(batch)
    usages = [row["response"]["body"]["usage"] for row in rows.values()]
    assert batch.request_counts.model_dump() == {"total": 4, "completed": 3, "failed": 1}
    assert batch.model == "gpt-4o-mini-2024-07-18"
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages) > 0
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages) > 0
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at


def test_output_rows_have_the_documented_shape(drive: Driver):
    batch = drive.run(chat_lines(1))

    (row,) = drive.rows(batch.output_file_id)

    assert row["id"].startswith("batch_req_")
    assert row["custom_id"] == "row-1"
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    assert row["response"]["request_id"].startswith("req_")
    assert batch.error_file_id is None


def test_a_refused_line_stands_in_the_error_file(drive: Driver):
    batch = drive.run([chat_line("row-1", temperature=5)])

    (row,) = drive.rows(batch.error_file_id)

    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert (row["custom_id"], row["error"]) == ("row-1", None)
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"] == {
        "message": "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, "
        "but got 5 instead.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "decimal_above_max_value",
    }


def test_output_order_is_not_input_order_but_repeats(drive: Driver, sandbox):
    def order():
        batch = drive.run(chat_lines(50))
        return [row["custom_id"] for row in drive.rows(batch.output_file_id)]

    first = order()
    sandbox.reset()

    assert order() == first != [f"row-{number}" for number in range(1, 51)]
    assert len(set(first)) == 50


def test_output_expires_after_holds_for_the_output_file(drive: Driver):
    expiry = {"anchor": "created_at", "seconds": 7200}

    batch = drive.run(chat_lines(1), output_expires_after=expiry)

    file = drive.client.files.retrieve(batch.output_file_id)
    assert file.purpose == "batch_output"
    assert file.expires_at - file.created_at in (7200, 7201)


def test_output_is_kept_for_thirty_days_by_default(drive: Driver):
    file_id = drive.run(chat_lines(1)).output_file_id

    file = drive.client.files.retrieve(file_id)

    assert file.expires_at - file.created_at in (30 * 86_400, 30 * 86_400 + 1)


def test_lists_are_newest_first_and_page(drive: Driver):
    file_id = drive.upload(chat_lines(1))
    made = [
        drive.client.batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h"
        ).id
        for _ in range(5)
    ]

    first = drive.client.batches.list(limit=2)

    assert [batch.id for batch in first.data] == [made[4], made[3]]
    assert (first.has_more, first.first_id, first.last_id) == (True, made[4], made[3])
    assert [batch.id for batch in drive.client.batches.list(limit=2)] == made[::-1]


def test_cancelling_keeps_what_was_answered(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 40}})
    batch = drive.create(chat_lines(100))
    until(lambda: drive.client.batches.retrieve(batch.id).request_counts.completed > 5)

    cancelling = drive.client.batches.cancel(batch.id)
    cancelled = drive.end(batch)

    answered = drive.rows(cancelled.output_file_id)
    unanswered = drive.rows(cancelled.error_file_id)
    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    assert (cancelled.status, cancelled.cancelled_at is not None) == ("cancelled", True)
    assert 5 < len(answered) < 100 == len(answered) + len(unanswered)
    assert {row["error"]["code"] for row in unanswered} == {"batch_cancelled"}
    assert {row["response"] for row in unanswered} == {None}


def test_a_batch_cancelled_while_validating_has_no_files(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"validating_s": 1000}})
    batch = drive.create(chat_lines(3))

    drive.client.batches.cancel(batch.id)

    cancelled = drive.end(batch)
    assert (cancelled.status, cancelled.output_file_id) == ("cancelled", None)
    assert cancelled.error_file_id is None


def test_an_ended_batch_can_not_be_cancelled(drive: Driver):
    batch = drive.run(chat_lines(1))

    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status"):
        drive.client.batches.cancel(batch.id)


def test_the_window_ends_by_the_clock(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 2 * 86_400}})
    batch = drive.create(chat_lines(10))
    until(lambda: drive.client.batches.retrieve(batch.id).status == "in_progress")

    sandbox.advance_clock(86_400)

    expired = drive.end(batch)
    unanswered = drive.rows(expired.error_file_id)
    assert expired.status == "expired"
    assert expired.expired_at >= expired.expires_at
    assert (len(drive.rows(expired.output_file_id)), len(unanswered)) == (4, 6)
    assert {row["error"]["code"] for row in unanswered} == {"batch_expired"}


def test_an_unknown_batch_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.batches.retrieve("batch_missing")

    assert caught.value.response.json() == {
        "error": {
            "message": "No batch found with id 'batch_missing'.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }


GOOD = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        pytest.param({"input_file_id": None}, "input_file_id", "missing_required_parameter", id="file"),
        pytest.param({"endpoint": None}, "endpoint", "missing_required_parameter", id="no endpoint"),
        pytest.param({"endpoint": "/v1/x"}, "endpoint", "invalid_value", id="endpoint"),
        pytest.param({"completion_window": "1h"}, "completion_window", "invalid_value", id="window"),
        pytest.param({"colour": "red"}, "colour", "unknown_parameter", id="unknown"),
        pytest.param({"metadata": {str(n): "" for n in range(17)}}, "metadata",
                     "object_above_max_properties", id="17 pairs"),
        pytest.param({"metadata": {"k" * 65: ""}}, "metadata", "string_above_max_length", id="key"),
        pytest.param({"metadata": {"k": "v" * 513}}, "metadata", "string_above_max_length", id="value"),
        pytest.param({"metadata": {"k": 1}}, "metadata.k", "invalid_type", id="value's type"),
        pytest.param({"output_expires_after": {"anchor": "created_at", "seconds": 1}},
                     "output_expires_after.seconds", "integer_below_min_value", id="expiry"),
    ],
)  # fmt: skip
def test_a_wrong_create_is_refused_at_once(client, change, param, code):
    body = {name: value for name, value in (GOOD | change).items() if value is not None}

    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/batches", body=body, cast_to=object)

    error = caught.value.response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert client.batches.list().data == []


def test_a_missing_authorization_is_refused_in_openais_shape(sandbox):
    request = urllib.request.Request(f"{sandbox.base_url}/models")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)

    with caught.value as response:
        error = json.loads(response.read())["error"]
    assert caught.value.code == 401
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


def test_an_unknown_path_and_method_are_refused_in_openais_shape(client):
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.get("/nothing", cast_to=object)
    with pytest.raises(openai.APIStatusError) as caught:
        client.delete("/batches", cast_to=object)

    assert caught.value.status_code == 405
    assert set(caught.value.response.json()["error"]) == {"message", "type", "param", "code"}


def test_models_are_listed_and_any_is_found(client, sandbox):
    sandbox.set_scenario({"unknown_models": ["gpt-9*"]})

    assert "gpt-4o-mini" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-4o").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9-turbo")
    assert caught.value.code == "model_not_found"
