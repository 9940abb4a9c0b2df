"""What a client receives: the provider's bytes, its own id, and our words around them."""

from __future__ import annotations

import json

import pytest

from delivery.envelope import render
from tests.batching.fake_provider import bad, good
from tests.batching.rows import a_request, an_answer

pytestmark = pytest.mark.django_db


def test_a_good_answer_is_handed_on_with_the_clients_own_id():
    request = a_request(state="processed", custom_id="mine é")
    answer = an_answer(request, good(request.key), input_tokens=3, output_tokens=5)

    told = json.loads(render(request, answer, b'{"a":"b"}'))

    line = json.loads(good(request.key))
    assert told == {
        "id": line["id"],
        "custom_id": "mine é",
        "response": line["response"],
        "error": None,
        "outcome": "succeeded",
        "metadata": {"a": "b"},
        "usage": {
            "input_tokens": 3, "cached_tokens": None, "output_tokens": 5, "reasoning_tokens": None,
        },
        "cost": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b'{"n": 1.10, "n":1e400 }',
        b'"a\\u0000b"',
        '"\u2028 \u0085"'.encode(),
        b'"\\ud800"',
        b'{"deep":[[[{"x" : null}]]], "s":"}\\"{"}',
    ],
    ids=["numbers", "nul", "separators", "lone-surrogate", "nested"],
)
@pytest.mark.parametrize("surrogate_beside", [b"", b',"other":"\\udfff"'], ids=["plain", "beside"])
def test_the_providers_bytes_are_spliced_in(text, surrogate_beside):
    request = a_request(state="processed")
    line = b'{"custom_id":"x", "response" : {"body":%b} ,"id":"i"%b}' % (text, surrogate_beside)

    told = render(request, an_answer(request, line), b"{}")

    assert b'"response":{"body":%b},' % text in told


def test_a_failed_request_with_a_line_is_told_in_the_providers_words():
    request = a_request(state="failed", error_code="rude", error_message="said rude")
    answer = an_answer(request, bad(request.key, 400, "rude"))

    told = json.loads(render(request, answer, b"{}"))

    assert told["outcome"] == "failed"
    assert told["response"]["status_code"] == 400
    assert told["error"] is None


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_an_end_without_an_answer_is_told_in_ours(state):
    request = a_request(state=state, error_code="why", error_message="because")

    told = json.loads(render(request, None, b"{}"))

    assert (told["id"], told["outcome"]) == (request.key, state)
    assert told["error"] == {"code": "why", "message": "because"}
    assert (told["response"], told["usage"]) == (None, None)


@pytest.mark.parametrize(
    "line", [b"not json", b"[]", b"", b'{"s":"\\ud800","n":' + b"9" * 5000 + b"}"]
)
def test_a_line_that_can_not_be_cut_is_told_as_an_error_and_stops_nothing(line):
    request = a_request(state="processed")
    answer = an_answer(request, b"x")
    answer.line = line

    told = json.loads(render(request, answer, b"{}"))

    assert told["error"]["code"] == "unreadable_answer"
    assert told["response"] is None
