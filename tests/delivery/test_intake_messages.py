"""Reading messages: every kind of content is a value, none an exception."""

from __future__ import annotations

import json

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.intake_messages import MAX_MESSAGE_BYTES, arrived, beginning, read
from tests.api.conftest import new_request


def message(*requests):
    return json.dumps(requests[0] if len(requests) == 1 else requests).encode()


def faults(body):
    return [(fault.code, fault.pointer) for fault in read(body).faults]


def test_a_message_is_one_request_or_an_array_of_them():
    one, many = message(new_request("a")), message(new_request("a"), new_request("b"))

    assert [line.custom_id for line in read(one).lines] == ["a"]
    contents = read(b" \n" + many)
    assert [line.custom_id for line in contents.lines] == ["a", "b"]
    assert contents.pointers == ["/0", "/1"]
    assert contents.faults == []


def test_a_body_keeps_its_bytes():
    body = b'[{"custom_id":"a","url":"/v1/responses","method":"POST","delivery_config":{"type":"none"},"body":{"model":"m","t":1.10}}]'

    assert read(body).lines[0].body == b'{"model":"m","t":1.10}'


WRONG = [
    pytest.param(b"{bad", "malformed_json", "", id="no-json"),
    pytest.param(b"", "malformed_json", "", id="empty"),
    pytest.param(b"[", "malformed_json", "", id="open-array"),
    pytest.param(b"[{}] {}", "malformed_json", "", id="more-behind"),
    pytest.param(b"7", "validation_error", "", id="a-number"),
    pytest.param(b"null", "validation_error", "", id="null"),
    pytest.param(b"[]", "validation_error", "", id="no-request"),
    pytest.param(b"[7]", "validation_error", "/0", id="a-number-in-an-array"),
    pytest.param(b'{"custom_id":"x"}', "validation_error", "/url", id="fields-missing"),
    pytest.param(b'{"a":"\xff"}', "invalid_encoding", "", id="no-utf8"),
    pytest.param(b'["\xff"]', "invalid_encoding", "", id="no-utf8-in-an-array"),
    pytest.param(b"[" * 200_000, "nested_too_deep", "", id="deep"),
    pytest.param(b" " * (MAX_MESSAGE_BYTES + 1), "payload_too_large", "", id="too-big"),
    pytest.param(json.dumps([{}] * 1001).encode(), "validation_error", "", id="too-many"),
]


@pytest.mark.parametrize(("body", "code", "pointer"), WRONG)
def test_what_can_not_be_read_is_a_fault(body, code, pointer):
    contents = read(body)

    assert [(f.code, f.pointer) for f in contents.faults] == [(code, pointer)]
    assert contents.lines == []


def test_a_wrong_request_is_named_by_its_place_and_leaves_the_others():
    hook = {"type": "webhook", "webhook_url": "not-a-valid-url"}
    body = message(new_request("a"), new_request("b", delivery_config=hook), new_request("c"))

    contents = read(body)

    assert [line.custom_id for line in contents.lines] == ["a", "c"]
    assert contents.pointers == ["/0", "/2"]
    assert faults(body) == [("validation_error", "/1/delivery_config/webhook_url")]


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(body):
    contents = read(body)

    assert contents.faults or contents.lines
    assert beginning(body).isprintable()


def test_properties_of_any_kind_become_text():
    properties = pika.BasicProperties(
        headers={"x-batcher-project": 7}, message_id=b"\xff\x00", reply_to="x" * 300
    )

    got = arrived(b"", properties, is_redelivered=True)

    assert (got.project, got.message_id) == ("7", "\\xff\\x00")
    assert len(got.reply_to) == 255
    assert arrived(b"", pika.BasicProperties(), is_redelivered=False).project == "default"
