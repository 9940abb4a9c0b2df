"""What the sandbox refuses in an input file, and at which line."""

from __future__ import annotations

import json

import pytest

from tests.sandbox.driving import CHAT, Driver, chat_line, chat_lines, line


def without(name: str) -> dict:
    whole = chat_line("row-2")
    del whole[name]
    return whole


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        pytest.param(b'{"custom_id": "row-2"', "invalid_json_line", None, id="not JSON"),
        pytest.param(b"[1]", "invalid_json_line", None, id="no object"),
        pytest.param(b"", "invalid_json_line", None, id="blank"),
        pytest.param(b'\xff{"custom_id":"row-2"}', "invalid_json_line", None, id="not UTF-8"),
        pytest.param(without("custom_id"), "missing_required_parameter", "custom_id", id="no id"),
        pytest.param(without("method"), "missing_required_parameter", "method", id="no method"),
        pytest.param(without("url"), "missing_required_parameter", "url", id="no url"),
        pytest.param(without("body"), "missing_required_parameter", "body", id="no body"),
        pytest.param(chat_line("row-1"), "duplicate_custom_id", "custom_id", id="duplicate"),
        pytest.param(chat_line("row-2", model="gpt-4o"), "mismatched_model", "body.model", id="model"),
        pytest.param(chat_line("row-2", model=None), "invalid_request", "body.model", id="no model"),
        pytest.param(chat_line("row-2", model="gpt-99"), "model_not_found", "body.model", id="unknown"),
        pytest.param(chat_line("row-2", stream=True), "streaming_unsupported", "body.stream", id="stream"),
        pytest.param(line("row-2", "/v1/responses", {"model": "gpt-4o-mini"}), "invalid_url", "url", id="url"),
        pytest.param(chat_line("row-2") | {"method": "GET"}, "invalid_method", "method", id="method"),
    ],
)  # fmt: skip
def test_a_bad_line_fails_the_batch_with_its_code_and_number(
    drive: Driver, sandbox, second, code, param
):
    sandbox.set_scenario({"unknown_models": ["gpt-99"]})

    created = drive.create([chat_line("row-1"), second, chat_line("row-3")])
    batch = drive.end(created)

    (error,) = batch.errors.data
    assert created.status == "validating"
    assert (batch.status, error.code, error.param, error.line) == ("failed", code, param, 2)
    assert error.message
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}
    assert batch.failed_at is not None


def test_a_byte_order_mark_is_no_json(drive: Driver):
    raw = b"\xef\xbb\xbf" + json.dumps(chat_line("row-1")).encode()

    batch = drive.run([raw])

    assert (batch.errors.data[0].code, batch.errors.data[0].line) == ("invalid_json_line", 1)


def test_an_empty_file_is_refused(drive: Driver):
    batch = drive.run([])

    assert (batch.status, batch.errors.data[0].code) == ("failed", "empty_file")
    assert batch.errors.data[0].line is None


@pytest.mark.parametrize("purpose", [None, "user_data"])
def test_a_file_that_is_no_batch_input_is_refused_later(drive: Driver, purpose):
    file_id = "file-missing"
    if purpose:
        file_id = drive.client.files.create(file=("a.jsonl", b"{}"), purpose=purpose).id

    created = drive.client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h"
    )

    error = drive.end(created).errors.data[0]
    assert (error.code, error.param, error.line) == ("invalid_request", "file_id", None)


def test_more_lines_than_the_limit_are_refused(drive: Driver, sandbox):
    sandbox.set_scenario({"limits": {"lines": 3}})

    assert drive.run(chat_lines(3)).status == "completed"
    assert drive.run(chat_lines(4)).errors.data[0].code == "request_limit_exceeded"


def test_embedding_inputs_count_one_by_one(drive: Driver, sandbox):
    sandbox.set_scenario({"limits": {"lines": 3}})
    body = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    lines = [line(f"row-{n}", "/v1/embeddings", body) for n in (1, 2)]

    assert drive.run(lines, "/v1/embeddings").errors.data[0].line == 2


def test_a_file_above_the_size_limit_is_refused(drive: Driver, sandbox):
    sandbox.set_scenario({"limits": {"file_bytes": 100}})

    error = drive.run(chat_lines(3)).errors.data[0]

    assert "larger than the 100 maximum" in error.message


def test_enqueued_tokens_are_limited_and_freed(drive: Driver, sandbox):
    sandbox.set_scenario(
        {"limits": {"enqueued_tokens": {"gpt-4o*": 60}}, "durations": {"in_progress_s": 10}}
    )

    first, second = drive.create(chat_lines(2)), drive.create(chat_lines(2))

    assert drive.end(second).errors.data[0].code == "token_limit_exceeded"
    assert drive.end(first).status == "completed"
    assert drive.run(chat_lines(2)).status == "completed"


def test_any_custom_id_comes_back_unchanged(drive: Driver):
    names = ["ünï — code/ " * 20, "\u2028", 'a\\b"c', "\x00"]

    batch = drive.run(chat_line(name) for name in names)

    assert set(drive.answers(batch)) == set(names)


def test_a_lone_surrogate_in_a_body_is_taken(drive: Driver):
    batch = drive.run([chat_line("row-1", "half \ud83d of a pair")])

    assert (batch.status, batch.request_counts.completed) == ("completed", 1)
