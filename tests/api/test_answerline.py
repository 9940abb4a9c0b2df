"""Cutting an answer line: every member as the bytes that came."""

from __future__ import annotations

import pytest

from batching.answerline import members, object_members

RESPONSE = b'{"status_code": 200, "body": {"a": "%b", "n": 1.10, "z": [1, "}"]}}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"plain", id="plain"),
        pytest.param("漢 🎉 \u2028".encode(), id="unicode"),
        pytest.param(rb"\u0000", id="NUL"),
        pytest.param(rb"\ud800 \" { [", id="half a pair"),
        pytest.param("漢".encode() + rb"\udc00", id="unicode and half a pair"),
    ],
)
def test_members_are_the_bytes_that_came(text):
    response = RESPONSE % text
    line = b'{ "id" : "1","custom_id":"' + text + b'", "response":' + response + b' ,"error": null}'

    cut = members(line)

    assert bytes(cut.response) == response
    assert (bytes(cut.id), bytes(cut.error)) == (b'"1"', b"null")


@pytest.mark.parametrize("text", [b"plain", rb"\ud800 }"])
def test_body_of_a_response_is_the_bytes_that_came(text):
    line = b'{"response":' + RESPONSE % text + b"}"

    cut = object_members(bytes(members(line).response))["body"]

    assert bytes(cut) == (RESPONSE % text)[29:-1]


def test_missing_members_are_null():
    assert bytes(members(rb'{"x":"\ud800"}').response) == b"null"


@pytest.mark.parametrize("line", [b"", b"[]", b'["\\ud800"]', b'{"a":"\\ud800"', b"{"])
def test_what_is_no_object_is_refused(line):
    with pytest.raises(ValueError, match=r".+"):
        members(line)


MESSAGE = rb'{"id":"msg_1", "content":[{"text":"\ud83d \u00e9"}], "n":1.10}'


def of_result(result: bytes):
    return members(b'{"custom_id":"req_1","result":%b}' % result)


def test_an_anthropic_message_is_the_body_of_a_response_as_it_came():
    cut = of_result(b'{"type":"succeeded","message":%b}' % MESSAGE)

    assert bytes(cut.response) == b'{"status_code":200,"request_id":null,"body":%b}' % MESSAGE
    assert (bytes(cut.id), bytes(cut.error)) == (b'"msg_1"', b"null")


@pytest.mark.parametrize(
    ("result", "error"),
    [
        pytest.param(
            rb'{"type":"errored","error":{"type":"error","error":{"type":"api_error","message":"\u00e9"}}}',
            rb'{"code":"api_error","message":"\u00e9"}',
            id="nested",
        ),
        pytest.param(b'{"type":"errored","error":"boom"}', b'"boom"', id="odd"),
        pytest.param(
            b'{"type":"expired"}',
            b'{"code":"batch_expired","message":"the batch expired"}',
            id="expired",
        ),
        pytest.param(
            b'{"type":"new"}',
            b'{"code":"unknown_result","message":"the provider\'s line is stored"}',
            id="unknown",
        ),
    ],
)
def test_an_anthropic_result_without_a_message_is_an_error(result, error):
    cut = of_result(result)

    assert (bytes(cut.error), bytes(cut.response)) == (error, b"null")
    assert bytes(cut.id) == b'"req_1"'
