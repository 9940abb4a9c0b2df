"""Faults of single lines: what stands in the output and error files."""

from __future__ import annotations

import json

import pytest

from tests.sandbox.driving import CHAT, Driver, chat_line, chat_lines, line


def rule(fault: str, **more) -> dict:
    return {"rules": [{"fault": fault, **more}]}


ROW_2 = {"custom_id": "^row-2$"}


def test_a_line_is_refused_at_validation(drive: Driver, sandbox):
    sandbox.set_scenario(rule("refuse_line", match=ROW_2, code="invalid_request", param="body.x"))

    batch = drive.run(chat_lines(3))

    (error,) = batch.errors.data
    assert (batch.status, error.code, error.param, error.line) == (
        "failed", "invalid_request", "body.x", 2,
    )  # fmt: skip


def test_a_line_is_refused_and_not_named(drive: Driver, sandbox):
    sandbox.set_scenario(rule("refuse_line", match=ROW_2, is_named=False))

    batch = drive.run(chat_lines(3))

    assert batch.status == "failed"
    assert [error.line for error in batch.errors.data] == [None]


@pytest.mark.parametrize("match", [ROW_2, {"body": "Say 2"}, {"line": 2}, {"line": [2, 9]}])
def test_lines_fail_by_pattern(drive: Driver, sandbox, match):
    sandbox.set_scenario(
        rule("fail_line", match=match, status=400, code="bad_thing", message="No.", param="x")
    )

    batch = drive.run(chat_lines(3))

    (row,) = drive.rows(batch.error_file_id)
    assert set(drive.answers(batch)) == {"row-1", "row-3"}
    assert (row["custom_id"], row["error"], row["response"]["status_code"]) == ("row-2", None, 400)
    assert row["response"]["body"]["error"] == {
        "message": "No.", "type": "invalid_request_error", "param": "x", "code": "bad_thing",
    }  # fmt: skip
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}


@pytest.mark.parametrize("file", ["error", "output"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, "server_error"), (429, "rate_limit_error"), (0, "server_error"), (200, "invalid_request_error")],
)  # fmt: skip
def test_a_failure_of_any_status_stands_in_either_file(drive: Driver, sandbox, file, status, kind):
    sandbox.set_scenario(rule("fail_line", match=ROW_2, status=status, file=file))

    batch = drive.run(chat_lines(2))

    file_id = batch.error_file_id if file == "error" else batch.output_file_id
    row = next(row for row in drive.rows(file_id) if row["custom_id"] == "row-2")
    assert row["response"]["status_code"] == status
    assert row["response"]["body"]["error"]["type"] == kind


def test_a_line_fails_once_and_is_answered_the_next_time(drive: Driver, sandbox):
    sandbox.set_scenario(rule("fail_line", match=ROW_2, times=1))

    first, second = drive.run(chat_lines(2)), drive.run(chat_lines(2))

    assert (first.request_counts.failed, second.request_counts.failed) == (1, 0)


def test_all_lines_fail(drive: Driver, sandbox):
    sandbox.set_scenario(rule("fail_line"))

    batch = drive.run(chat_lines(3))

    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(drive.rows(batch.error_file_id)) == 3
    assert batch.request_counts.failed == 3


@pytest.mark.parametrize("error", ["boom", {"code": "request_timeout", "message": "Late."}, ["x"]])
@pytest.mark.parametrize("file", ["error", "output"])
def test_a_row_carries_a_top_level_error_of_any_shape(drive: Driver, sandbox, error, file):
    sandbox.set_scenario(rule("line_error", error=error, file=file))

    batch = drive.run(chat_lines(1))

    file_id = batch.error_file_id if file == "error" else batch.output_file_id
    (row,) = drive.rows(file_id)
    assert (row["error"], row["response"], row["custom_id"]) == (error, None, "row-1")


def test_a_row_with_an_error_may_keep_its_response(drive: Driver, sandbox):
    sandbox.set_scenario(rule("line_error", error="boom", file="output", keep_response=True))

    (row,) = drive.rows(drive.run(chat_lines(1)).output_file_id)

    assert (row["error"], row["response"]["status_code"]) == ("boom", 200)


def test_a_line_is_missing_though_counted(drive: Driver, sandbox):
    sandbox.set_scenario(rule("drop_line", match=ROW_2))

    batch = drive.run(chat_lines(3))

    assert set(drive.answers(batch)) == {"row-1", "row-3"}
    assert (batch.request_counts.completed, batch.error_file_id) == (3, None)


def test_a_row_stands_twice(drive: Driver, sandbox):
    sandbox.set_scenario(rule("duplicate_line", match=ROW_2))

    rows = drive.rows(drive.run(chat_lines(2)).output_file_id)

    first, second = (row for row in rows if row["custom_id"] == "row-2")
    assert (len(rows), first) == (3, second)


def test_a_row_stands_twice_and_contradicts_itself(drive: Driver, sandbox):
    sandbox.set_scenario(rule("duplicate_line", conflicting=True))

    rows = drive.rows(drive.run(chat_lines(1)).output_file_id)

    assert [row["response"]["status_code"] for row in rows] == [200, 500]


def test_a_row_is_for_nobody(drive: Driver, sandbox):
    sandbox.set_scenario(rule("unknown_line", custom_id="ghost"))

    assert set(drive.answers(drive.run(chat_lines(1)))) == {"row-1", "ghost"}


def test_a_row_has_no_custom_id(drive: Driver, sandbox):
    sandbox.set_scenario(rule("no_custom_id"))

    (row,) = drive.rows(drive.run(chat_lines(1)).output_file_id)

    assert "custom_id" not in row
    assert row["response"]["status_code"] == 200


@pytest.mark.parametrize(("instead", "rows"), [(False, 2), (True, 1)])
def test_a_row_is_no_json(drive: Driver, sandbox, instead, rows):
    sandbox.set_scenario(rule("invalid_json", instead=instead))

    raw = drive.raw(drive.run(chat_lines(1)).output_file_id)

    lines = raw.rstrip(b"\n").split(b"\n")
    assert len(lines) == rows
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[-1])


def test_a_row_is_blank(drive: Driver, sandbox):
    sandbox.set_scenario(rule("blank_line"))

    raw = drive.raw(drive.run(chat_lines(2)).output_file_id)

    assert raw.count(b"\n\n") == 2


def test_a_row_ends_with_crlf(drive: Driver, sandbox):
    sandbox.set_scenario(rule("crlf_ending"))

    assert drive.raw(drive.run(chat_lines(1)).output_file_id).endswith(b"}\r\n")


@pytest.mark.parametrize("endpoint", [CHAT, "/v1/responses"])
@pytest.mark.parametrize(
    ("kind", "raw", "text"),
    [
        ("u2028", "\u2028\u2029".encode(), "\u2028\u2029\x85"),
        ("nul", b"\\u0000", "\x00"),
        ("lone_surrogate", b"\\ud83d", "\ud83d"),
        ("crlf", b"\\r\\n", "\r\n"),
        ("all", b"\\u0000 \\ud83d \\r\\n", "\x00 \ud83d \r\n"),
    ],
)
def test_answers_hold_odd_characters(drive: Driver, sandbox, endpoint, kind, raw, text):
    sandbox.set_scenario(rule("odd_text", kind=kind))
    bodies = {CHAT: chat_line("row-1")["body"], "/v1/responses": {"model": "gpt-4o", "input": "x"}}

    batch = drive.run([line("row-1", endpoint, bodies[endpoint])], endpoint)

    content = drive.raw(batch.output_file_id)
    body = json.loads(content)["response"]["body"]
    written = (
        body["choices"][0]["message"]["content"]
        if endpoint == CHAT
        else body["output"][-1]["content"][0]["text"]
    )
    assert raw in content
    assert written.endswith(text)


def test_an_answer_is_as_long_as_one_likes(drive: Driver, sandbox):
    sandbox.set_scenario(rule("big_answer", match=ROW_2, size_bytes=5_000_000))

    sizes = {
        name: len(json.dumps(row)) for name, row in drive.answers(drive.run(chat_lines(2))).items()
    }

    assert sizes["row-1"] < 5_000 < 5_000_000 < sizes["row-2"] < 5_010_000


def test_an_answer_has_no_usage(drive: Driver, sandbox):
    sandbox.set_scenario(rule("no_usage", match=ROW_2))

    answers = drive.answers(drive.run(chat_lines(2)))

    assert "usage" in answers["row-1"]["response"]["body"]
    assert "usage" not in answers["row-2"]["response"]["body"]


def test_a_seeded_share_of_lines_fails(drive: Driver, sandbox):
    def failed():
        sandbox.reset()
        sandbox.set_scenario(rule("fail_line", rate=0.2))
        return {row["custom_id"] for row in drive.rows(drive.run(chat_lines(100)).error_file_id)}

    first = failed()

    assert 5 < len(first) < 40
    assert failed() == first


def test_several_faults_strike_one_line_in_their_order(drive: Driver, sandbox):
    faults = [{"fault": "crlf_ending"}, {"fault": "duplicate_line"}, {"fault": "blank_line"}]
    sandbox.set_scenario({"rules": faults})

    raw = drive.raw(drive.run(chat_lines(1)).output_file_id)

    assert raw.count(b"\r\n\r\n") == 2
    assert raw.count(b'"custom_id":"row-1"') == 2


def test_unanswered_lines_are_left_alone(drive: Driver, sandbox):
    sandbox.set_scenario({"rules": [{"fault": "expire"}, {"fault": "fail_line"}]})

    rows = drive.rows(drive.run(chat_lines(2)).error_file_id)

    assert [row["error"]["code"] for row in rows] == ["batch_expired"] * 2
