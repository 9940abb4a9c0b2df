"""Faults of single calls: what the SDK runs into, and what was done all the same."""

from __future__ import annotations

import time
import urllib.error

import openai
import pytest
from openai import OpenAI

from tests.sandbox.driving import CHAT, Driver, chat_lines


def rule(fault: str, route: str | None = None, **more) -> dict:
    match = more.pop("match", {}) | ({"route": route} if route else {})
    return {"rules": [{"fault": fault, "match": match, **more}]}


def test_a_rate_limit_strikes_its_route_so_many_times(client, sandbox):
    sandbox.set_scenario(rule("rate_limit", "batches.list", times=2, retry_after_s=7))

    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            client.batches.list()
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.response.json()["error"] == {
            "message": "Rate limit reached (sandbox).",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    assert client.batches.list().data == []
    assert client.files.list().data == []


def test_the_sdk_waits_out_a_storm_by_itself(sandbox):
    sandbox.set_scenario(rule("rate_limit", "batches.*", times=2, retry_after_s=0.01))

    with OpenAI(base_url=sandbox.base_url, api_key="any", max_retries=3) as patient:
        assert patient.batches.list().data == []

    assert sandbox.stats()["calls"]["batches.list"] == {"429": 2, "200": 1}


@pytest.mark.parametrize(
    ("style", "content_type", "body"),
    [
        ("json", "application/json", b'{"error":{"message":'),
        ("html", "text/html; charset=utf-8", b"<html>"),
        ("empty", None, b""),
        ("malformed", "application/json", b'{"error": {"message": "The server had'),
    ],
)
def test_a_server_error_comes_in_any_style(client, sandbox, style, content_type, body):
    sandbox.set_scenario(rule("http_error", "files.list", status=502, style=style))

    with pytest.raises(openai.InternalServerError) as caught:
        client.files.list()

    assert caught.value.status_code == 502
    assert caught.value.response.headers.get("content-type") == content_type
    assert caught.value.response.content.startswith(body)


def test_an_error_can_come_after_the_work_was_done(drive: Driver, sandbox):
    sandbox.set_scenario(rule("http_error", "batches.create", status=500, after_effect=True))

    with pytest.raises(openai.InternalServerError):
        drive.create(chat_lines(1))

    assert len(drive.client.batches.list().data) == 1


def test_a_full_token_queue_can_refuse_the_creation(drive: Driver, sandbox):
    sandbox.set_scenario(rule("token_limit_at_creation", times=1))

    with pytest.raises(openai.BadRequestError) as caught:
        drive.create(chat_lines(1))

    assert caught.value.code == "token_limit_exceeded"
    assert drive.client.batches.list().data == []


def test_a_call_hangs_longer_than_the_client_waits(client, sandbox):
    sandbox.set_scenario(rule("hang", "batches.list", seconds=30, times=1))

    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).batches.list()

    assert client.batches.list().data == []


def test_a_hanging_call_may_answer_after_all(client, sandbox):
    sandbox.set_scenario(rule("hang", "batches.list", seconds=0.3, then="answer"))
    started = time.monotonic()

    assert client.batches.list().data == []

    assert time.monotonic() - started >= 0.3


def test_a_hanging_call_may_have_done_its_work(drive: Driver, sandbox):
    sandbox.set_scenario(rule("hang", "batches.create", seconds=0.1, after_effect=True, times=1))

    with pytest.raises(openai.APIConnectionError):
        drive.create(chat_lines(1))

    assert len(drive.client.batches.list().data) == 1


@pytest.mark.parametrize(("after_effect", "made"), [(True, 1), (False, 0)])
def test_the_reply_to_a_creation_is_lost(drive: Driver, sandbox, after_effect, made):
    sandbox.set_scenario(
        rule("drop_connection", "batches.create", after_effect=after_effect, times=1)
    )

    with pytest.raises(openai.APIConnectionError):
        drive.create(chat_lines(1), metadata={"batcher": "b-1"})

    assert [batch.metadata for batch in drive.client.batches.list()] == [{"batcher": "b-1"}] * made
    assert sandbox.stats()["calls"]["batches.create"] == {"gone": 1}


def test_the_reply_to_an_upload_is_lost(drive: Driver, sandbox):
    sandbox.set_scenario(rule("drop_connection", "files.create", times=1))

    with pytest.raises(openai.APIConnectionError):
        drive.upload(chat_lines(1))

    assert [file.filename for file in drive.client.files.list()] == ["in.jsonl"]


def test_a_download_ends_before_its_length(drive: Driver, sandbox):
    sandbox.set_scenario(rule("truncate_download", times=1, keep=0.5))
    batch = drive.run(chat_lines(50))

    with pytest.raises(openai.APIConnectionError):
        drive.raw(batch.output_file_id)

    assert len(drive.rows(batch.output_file_id)) == 50


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        pytest.param({"nth": 2}, [2], id="nth"),
        pytest.param({"nth": [1, 3]}, [1, 3], id="several"),
        pytest.param({"every": 2}, [2, 4], id="every"),
    ],
)
def test_a_rule_counts_the_calls_that_fit(client, sandbox, match, struck):
    sandbox.set_scenario(rule("rate_limit", "batches.list", match=match))

    refused = []
    for number in range(1, 5):
        client.models.list()
        try:
            client.batches.list()
        except openai.RateLimitError:
            refused.append(number)

    assert refused == struck


def test_a_rule_matches_creation_by_endpoint_and_metadata(drive: Driver, sandbox):
    match = {"endpoint": CHAT, "metadata": {"who": "me"}}
    sandbox.set_scenario(rule("rate_limit", "batches.create", match=match))

    drive.create(chat_lines(1), metadata={"who": "you"})
    with pytest.raises(openai.RateLimitError):
        drive.create(chat_lines(1), metadata={"who": "me", "more": "x"})


def test_a_rule_matches_calls_about_a_batch_by_its_metadata(drive: Driver, sandbox):
    sandbox.set_scenario(rule("rate_limit", "batches.retrieve", match={"metadata": {"who": "me"}}))
    mine = drive.create(chat_lines(1), metadata={"who": "me"})
    yours = drive.create(chat_lines(1), metadata={"who": "you"})

    assert drive.client.batches.retrieve(yours.id).id == yours.id
    with pytest.raises(openai.RateLimitError):
        drive.client.batches.retrieve(mine.id)


def test_a_rule_matches_synchronous_calls_by_model_and_body(client, sandbox):
    sandbox.set_scenario(rule("http_error", "responses", match={"model": "gpt-4*", "body": "boom"}))

    client.responses.create(model="gpt-4o", input="fine")
    client.responses.create(model="gpt-5-nano", input="boom")
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="gpt-4o", input="boom")


def test_a_share_of_calls_is_struck_and_the_same_ones_again(client, sandbox):
    def struck():
        sandbox.reset()
        sandbox.set_scenario(rule("http_error", "models.list", rate=0.5))
        return [number for number in range(20) if _fails(client.models.list)]

    first = struck()

    assert 3 < len(first) < 17
    assert struck() == first


def _fails(call) -> bool:
    try:
        call()
    except openai.APIStatusError:
        return True
    return False


def test_control_calls_are_never_struck(sandbox):
    sandbox.set_scenario(rule("drop_connection", "*"))

    assert sandbox.stats()["batches"]["created"] == 0
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        sandbox.control("GET", "/v1/models")
