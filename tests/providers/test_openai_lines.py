"""OpenAI's lines: the liberties that servers take, and the bytes that must survive."""

from __future__ import annotations

import json

import pytest

from batching.providers.base import Kind, Usage
from batching.providers.openai_lines import read_answer, read_answers, render_line, usage_of


def line_with(response, error=None) -> bytes:
    return json.dumps({"custom_id": "req_1", "response": response, "error": error}).encode()


def http(status, body):
    return {"status_code": status, "request_id": "r", "body": body}


@pytest.mark.parametrize(
    ("response", "error", "kind", "code", "is_retryable"),
    [
        (http(200, {"error": None}), None, Kind.SUCCEEDED, "", False),
        (http(201, {}), None, Kind.SUCCEEDED, "", False),
        (http(200, None), None, Kind.SUCCEEDED, "", False),
        (http(200, [1]), None, Kind.SUCCEEDED, "", False),
        (http("200", {}), None, Kind.SUCCEEDED, "", False),
        (http(200, {"error": {"code": "server_error"}}), None, Kind.FAILED, "server_error", True),
        (http(200, {}), {"code": "odd", "message": "m"}, Kind.FAILED, "odd", False),
        (http(200, {}), "odd", Kind.FAILED, "", False),
        (http(400, {"error": {"code": "bad"}}), None, Kind.FAILED, "bad", False),
        (http(400, '{"message": "bad"}'), None, Kind.FAILED, "", False),
        (http(400, {"error": {"type": "server_error"}}), None, Kind.FAILED, "server_error", True),
        (http(408, {}), None, Kind.FAILED, "", True),
        (http(409, {}), None, Kind.FAILED, "", True),
        (http(429, {}), None, Kind.FAILED, "", True),
        (
            http(429, {"error": {"type": "insufficient_quota"}}),
            None,
            Kind.FAILED,
            "insufficient_quota",
            False,
        ),
        (http(503, "<html>"), None, Kind.FAILED, "", True),
        (http(0, {}), None, Kind.FAILED, "", True),
        (http(None, {}), None, Kind.FAILED, "", False),
        (http(True, {}), None, Kind.FAILED, "", False),
        ("odd", None, Kind.FAILED, "", False),
        ({}, None, Kind.FAILED, "", False),
        (None, {"code": "batch_expired"}, Kind.NOT_RUN, "batch_expired", True),
        (None, {"code": "batch_cancelled"}, Kind.NOT_RUN, "batch_cancelled", True),
        (None, {"code": "request_timeout"}, Kind.NOT_RUN, "request_timeout", True),
        (None, {"code": "batch_client_error"}, Kind.FAILED, "batch_client_error", False),
        (None, {"code": "400"}, Kind.FAILED, "400", False),
        (None, {"code": 503}, Kind.FAILED, "503", True),
        (None, "something broke", Kind.FAILED, "no_response", False),
        (None, None, Kind.FAILED, "no_response", False),
    ],
)
def test_line_is_classified(response, error, kind, code, is_retryable):
    answer = read_answer(line_with(response, error))

    assert (answer.kind, answer.error_code, answer.is_retryable) == (kind, code, is_retryable)
    assert answer.custom_id == "req_1"


@pytest.mark.parametrize(
    "text",
    [
        "\\u0000",
        "\\ud800",
        "\\udfff\\ud800 x",
        "\\ud83d\\ude00",
        "\\\\ud800",
        "\u2028\u2029\x85",
        "😀",
    ],
    ids=["nul", "lone surrogate", "reversed pair", "pair", "no escape", "separators", "emoji"],
)
def test_answer_survives_byte_for_byte(tmp_path, text):
    good, bad = (
        line.replace("TEXT", text)
        for line in (
            '{"custom_id":"req_1","response":{"status_code":200,"body":{"a":"TEXT"}},"error":null}',
            '{"custom_id":"req_2","response":{"status_code":400,"body":{"error":{"message":"TEXT"}}}}',
        )
    )
    path = tmp_path / "output.jsonl"
    path.write_bytes(f"{good}\n{bad}\n".encode())

    first, second = read_answers(path)

    assert (first.kind, first.raw) == (Kind.SUCCEEDED, good.encode())
    assert (second.kind, second.raw) == (Kind.FAILED, bad.encode())
    assert second.error_message
    assert "\0" not in second.error_message
    assert second.error_message.encode()


def test_file_may_start_with_a_mark_use_crlf_and_lack_the_last_newline(tmp_path):
    path = tmp_path / "output.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join([line_with(http(200, {}))] * 2))

    assert [each.raw for each in read_answers(path)] == [line_with(http(200, {}))] * 2


def test_empty_file_holds_no_answers(tmp_path):
    path = tmp_path / "errors.jsonl"
    path.touch()

    assert list(read_answers(path)) == []


def test_line_of_20_megabytes_is_read(tmp_path):
    path = tmp_path / "output.jsonl"
    line = line_with(http(200, {"image": "x" * 20_000_000, "usage": {"input_tokens": 3}}))
    path.write_bytes(line + b"\n" + line)

    answers = list(read_answers(path))

    assert [each.raw == line for each in answers] == [True, True]
    assert [each.usage for each in answers] == [Usage(input_tokens=3)] * 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id":"req_1","response":{"status_code":200',
        b'{"custom_id":"req_1","response":{"a":"\xff"}}',
        b'{"custom_id":"req_1","response":{"a":"\x00"}}',
        b'{"custom_id":"req_1","response":{"a":NaN}}',
        b'{"custom_id":"","response":{}}',
        b'{"custom_id":"a\\u0000","response":{}}',
        b'{"custom_id":null,"response":{}}',
        b'{"response":{"status_code":200,"body":{}}}',
        b'{"custom_id":"req_1","response":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=["cut", "not utf-8", "raw nul", "nan", "empty", "nul id", "null id", "no id", "deep"],
)
def test_line_that_is_not_json_or_nobodys_is_malformed(line):
    answer = read_answer(line)

    assert (answer.kind, answer.raw, answer.custom_id) == (Kind.MALFORMED, line, None)


def test_message_for_people_is_short():
    answer = read_answer(
        line_with(http(400, {"error": {"code": "c" * 999, "message": "m" * 9999}}))
    )

    assert (len(answer.error_code), len(answer.error_message)) == (100, 500)


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        (None, None),
        ([], None),
        ({}, Usage()),
        ({"prompt_tokens": 2, "total_tokens": 2}, Usage(input_tokens=2)),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, Usage(input_tokens=9)),
        ({"prompt_tokens": "9", "completion_tokens": -1, "prompt_tokens_details": 7}, Usage()),
        ({"input_tokens": True, "output_tokens": 1.5}, Usage()),
        ({"input_tokens": 10**30, "output_tokens": 0}, Usage(output_tokens=0)),
        (
            {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(output_tokens=5, reasoning_tokens=4),
        ),
        (
            {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}},
            Usage(input_tokens=3, cached_tokens=1),
        ),
    ],
)
def test_every_token_count_is_optional(given, usage):
    assert usage_of(given) == usage


def test_ids_are_quoted_and_the_body_is_not_touched():
    body = b'{"a": 1.10, "a":1.1}'

    line = render_line(custom_id='r"1', endpoint="/v1/responses", body=body)

    assert (
        line
        == b'{"custom_id":"r\\"1","method":"POST","url":"/v1/responses","body":' + body + b"}\n"
    )
