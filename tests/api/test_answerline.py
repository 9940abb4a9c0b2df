"""Cutting an answer line: every member as the bytes that came."""

from __future__ import annotations

import pytest

from batching.answerline import members

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


def test_missing_members_are_null():
    assert bytes(members(rb'{"x":"\ud800"}').response) == b"null"


@pytest.mark.parametrize("line", [b"", b"[]", b'["\\ud800"]', b'{"a":"\\ud800"', b"{"])
def test_what_is_no_object_is_refused(line):
    with pytest.raises(ValueError, match=r".+"):
        members(line)
