"""The sandbox's /v1/messages/batches, driven by the official anthropic SDK."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta

import anthropic
import pytest
from anthropic import Anthropic

from tests.sandbox.driving import until
from tests.sandbox_process import SandboxProcess

NOTHING = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}


@pytest.fixture
def claude(sandbox: SandboxProcess) -> Iterator[Anthropic]:
    with Anthropic(base_url=sandbox.url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


def request(custom_id: str, text: str = "Say hi", **params) -> dict:
    messages = [{"role": "user", "content": text}]
    own = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": messages} | params
    return {"custom_id": custom_id, "params": own}


def ended(claude: Anthropic, batch_id: str):
    def look():
        batch = claude.messages.batches.retrieve(batch_id)
        return batch if batch.processing_status == "ended" else None

    return until(look)


def run(claude: Anthropic, *requests: dict) -> tuple:
    """Return the ended batch and its results by custom_id."""
    batch = ended(claude, claude.messages.batches.create(requests=requests).id)
    return batch, {row.custom_id: row.result for row in claude.messages.batches.results(batch.id)}


def test_a_batch_ends_and_its_messages_say_what_they_used(claude):
    batch, results = run(claude, request("a", "What is water?"), request("b"))

    assert batch.request_counts.model_dump() == NOTHING | {"succeeded": 2}
    message = results["a"].message
    assert (results["a"].type, message.role, message.model) == (
        "succeeded",
        "assistant",
        "claude-haiku-4-5",
    )
    assert "What is water?" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert (message.usage.cache_read_input_tokens, message.usage.service_tier) == (0, "batch")


def test_everything_is_processing_until_the_batch_ends(claude, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 1000}})

    batch = claude.messages.batches.create(requests=[request("a"), request("b")])

    shown = sandbox_json(sandbox, f"/v1/messages/batches/{batch.id}")
    assert batch.expires_at - batch.created_at == timedelta(hours=24)
    assert shown == {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": NOTHING | {"processing": 2},
        "created_at": shown["created_at"],
        "expires_at": shown["expires_at"],
        "ended_at": None,
        "cancel_initiated_at": None,
        "archived_at": None,
        "results_url": None,
    }


def test_bad_params_are_found_when_their_turn_comes(claude, sandbox):
    sandbox.set_scenario({"unknown_models": ["claude-9*"]})
    bad = {
        "short": (request("short", max_tokens=0), "invalid_request_error"),
        "streamed": (request("streamed", stream=True), "invalid_request_error"),
        "fast": (request("fast", speed="fast"), "invalid_request_error"),
        "hot": (request("hot", temperature=1.5), "invalid_request_error"),
        "empty": ({"custom_id": "empty", "params": {}}, "invalid_request_error"),
        "mute": (request("mute", messages=[]), "invalid_request_error"),
        "unknown": (request("unknown", model="claude-9"), "not_found_error"),
    }

    batch, results = run(claude, request("good"), *(sent for sent, _ in bad.values()))

    assert batch.request_counts.model_dump() == NOTHING | {"succeeded": 1, "errored": len(bad)}
    kinds = {name: results[name].error.error.type for name in bad}
    assert kinds == {name: kind for name, (_, kind) in bad.items()}
    assert results["short"].error.request_id.startswith("req_")


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request("a" * 65)], "requests.0.custom_id: String should have at most 64 characters"),
        (
            [request("ok"), request("no blanks")],
            "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        ([request("a"), request("a")], "requests.1.custom_id: 'a' is not unique"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{"custom_id": "a", "params": 7}], "requests.0.params: Input should be an object"),
        ([], "requests: List should have at least 1 item after validation, not 0"),
    ],
    ids=["long", "pattern", "twice", "no-params", "odd-params", "none"],
)
def test_a_wrong_envelope_is_refused_at_once(claude, requests, message):
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.batches.create(requests=requests)

    body = caught.value.response.json()
    assert body["error"] == {"type": "invalid_request_error", "message": message}
    assert body["request_id"] == caught.value.response.headers["request-id"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"requests":[{"custom_id":"a","params":{"x":"', b'{"requests":[{]}',
     b'{"requests":[{"custom_id":"a","params":{}}]} 7', b'{"requests":[{"custom_id":"a","params":{}}'],
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused(sandbox, body):
    status, answer = post(sandbox, body)

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert sandbox.stats()["batches"]["created"] == 0


def test_limits_are_those_of_the_scenario(claude, sandbox):
    sandbox.set_scenario({"limits": {"messages": 1, "message_bytes": 500}})

    with pytest.raises(anthropic.BadRequestError, match="at most 1 items"):
        claude.messages.batches.create(requests=[request("a"), request("b")])
    status, answer = post(sandbox, json.dumps({"requests": [request("a", "x" * 500)]}).encode())
    assert (status, answer["error"]["type"]) == (413, "request_too_large")


def test_a_request_comes_through_byte_for_byte_whatever_is_around_it(sandbox):
    params = '{"model": "m",  "max_tokens":1e1, "q":"\\u00e9 \\"}] \\\\", "messages":[{}]}'
    raw = ' { "requests" :\n[ {"params": %s , "custom_id":"a"} ,\r\n{"custom_id":"b","params":{}} ] } '

    _, answer = post(sandbox, (raw % params).encode())

    first, second = sandbox.lines(answer["id"])
    lines = sandbox.fetch("GET", f"/sandbox/batches/{answer['id']}/lines").decode()
    assert (first["custom_id"], second["custom_id"]) == ("a", "b")
    assert params in lines


def test_canceling_leaves_what_did_not_run(claude, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 1000}})
    batch = claude.messages.batches.create(requests=[request("a"), request("b")])

    canceling = claude.messages.batches.cancel(batch.id)

    assert (canceling.processing_status, canceling.results_url) == ("canceling", None)
    assert canceling.cancel_initiated_at is not None
    done = ended(claude, batch.id)
    assert done.request_counts.model_dump() == NOTHING | {"canceled": 2}
    assert {row.result.type for row in claude.messages.batches.results(batch.id)} == {"canceled"}


def test_what_is_not_answered_within_a_day_expires(claude, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 200_000}})
    batch = claude.messages.batches.create(requests=[request(f"r{n}") for n in range(4)])
    sandbox.advance_clock(90_000)

    counts = ended(claude, batch.id).request_counts

    assert (counts.succeeded, counts.expired) == (1, 3)


def test_only_an_ended_batch_can_be_deleted(claude, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 1000}})
    running = claude.messages.batches.create(requests=[request("a")])
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.batches.delete(running.id)
    sandbox.clear_scenario()
    batch, _ = run(claude, request("b"))

    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"

    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)
    assert [one.id for one in claude.messages.batches.list()] == [running.id]


def test_lists_go_both_ways_and_keep_to_their_own(claude, client, sandbox):
    ids = [claude.messages.batches.create(requests=[request("a")]).id for _ in range(5)][::-1]

    first = claude.messages.batches.list(limit=2)
    back = claude.messages.batches.list(limit=2, before_id=ids[3])

    assert [one.id for one in first] == ids
    assert (first.has_more, first.first_id, first.last_id) == (True, ids[0], ids[1])
    assert ([one.id for one in back.data], back.has_more) == (ids[1:3], True)
    assert list(client.batches.list()) == []
    assert list(client.files.list()) == []
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.list(after_id="msgbatch_none")


def test_results_are_gone_after_29_days(claude, sandbox):
    batch, _ = run(claude, request("a"))
    sandbox.advance_clock(30 * 86_400)

    late = claude.messages.batches.retrieve(batch.id)

    assert late.results_url is None
    assert late.archived_at is not None
    with pytest.raises(urllib.error.HTTPError) as caught:
        sandbox_json(sandbox, f"/v1/messages/batches/{batch.id}/results")
    assert caught.value.code == 404
    caught.value.close()


def test_a_key_may_come_either_way_but_must_come(sandbox):
    for headers in ({"x-api-key": "k"}, {"authorization": "Bearer k"}):
        assert sandbox_json(sandbox, "/v1/messages/batches", headers)["data"] == []
    with pytest.raises(urllib.error.HTTPError) as caught:
        sandbox_json(sandbox, "/v1/messages/batches", {"x-other": "k"})
    with caught.value as answer:
        body = json.load(answer)
    assert (answer.code, body["error"]["type"]) == (401, "authentication_error")


def test_faults_of_calls_speak_in_anthropics_words(claude, sandbox):
    match = {"route": "messages.batches.create"}
    sandbox.set_scenario(
        {"rules": [{"fault": "http_error", "status": 529, "match": match, "times": 1},
                   {"fault": "drop_connection", "match": match, "times": 1}]}
    )  # fmt: skip

    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.batches.create(requests=[request("a")])
    assert caught.value.response.json()["error"]["type"] == "overloaded_error"
    with pytest.raises(anthropic.APIConnectionError):
        claude.messages.batches.create(requests=[request("a")])
    assert len(list(claude.messages.batches.list())) == 1


def test_faults_of_lines_strike_results_too(claude, sandbox):
    sandbox.set_scenario(
        {"rules": [{"fault": "fail_line", "match": {"custom_id": "bad"}, "status": 529},
                   {"fault": "drop_line", "match": {"body": "lose me"}},
                   {"fault": "odd_text", "match": {"custom_id": "odd"}, "kind": "nul"}]}
    )  # fmt: skip

    _, results = run(claude, request("bad"), request("lost", "lose me"), request("odd"))

    assert set(results) == {"bad", "odd"}
    assert results["bad"].error.error.type == "overloaded_error"
    assert "\0" in results["odd"].message.content[0].text


def test_a_single_message_is_answered_at_once(claude):
    params = request("x", "Why?", max_tokens=1)["params"]

    message = claude.messages.create(**params)

    assert (message.stop_reason, message.usage.service_tier) == ("max_tokens", "standard")


def post(sandbox: SandboxProcess, body: bytes) -> tuple[int, dict]:
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    url = f"{sandbox.url}/v1/messages/batches"
    call = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(call, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sandbox_json(sandbox: SandboxProcess, path: str, headers: dict | None = None) -> dict:
    headers = {"anthropic-version": "2023-06-01"} | (headers or {"x-api-key": "any"})
    call = urllib.request.Request(sandbox.url + path, headers=headers)
    with urllib.request.urlopen(call, timeout=20) as answer:
        return json.load(answer)
