"""One call, one request: the official SDK's ordinary calls, answered when their batch is."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests

from batching.api import waiting
from batching.api.openai import call_names
from batching.models import Answer, ApiKey, Flag, Request
from batching.models.projects import Scope
from tests.front_door.conftest import MINI
from tests.scenarios.provider import fault, misbehave

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = {"X-Batcher-Max-Wait": "0"}
ASYNC = {"Prefer": "respond-async", **AT_ONCE}
SAY_HI = {"model": MINI, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.02)
    call_names.forget()


@pytest.fixture
def calling():
    """Return a function that makes calls from threads of their own; its value is a future."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def chat(door, **headers):
    """Make an ordinary chat call; return the whole HTTP answer."""
    how = {"extra_headers": {**AT_ONCE, **headers}}
    return door.sdk.chat.completions.with_raw_response.create(**SAY_HI, **how)


def stored(count=1):
    return lambda: Request.objects.count() == count


def refusal(call, *given, **how):
    """Return the error that the SDK raises."""
    with pytest.raises(openai.APIStatusError) as raised:
        call(*given, **how)
    return raised.value


CALLS = {
    "chat": lambda sdk, **how: sdk.chat.completions.create(**SAY_HI, **how).choices[0].message,
    "responses": lambda sdk, **how: sdk.responses.create(model=MINI, input="Hi", **how).output_text,
    "completions": lambda sdk, **how: (
        sdk.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hi", **how).choices[0].text
    ),
    "embeddings": lambda sdk, **how: (
        sdk.embeddings.create(model="text-embedding-3-small", input="Hi", **how).data[0].embedding
    ),
    "moderations": lambda sdk, **how: sdk.moderations.create(
        model="omni-moderation-latest", input="Hi", **how
    ).results[0],
}


@pytest.mark.parametrize("name", CALLS)
def test_an_unchanged_call_returns_its_answer(door, road, calling, name):
    call = calling(CALLS[name], door.sdk)
    road.until(stored())
    road.later(seconds=6)

    road.until(call.done)

    assert call.result()
    assert Request.objects.get().custom_id.startswith("call-")


def test_answer_is_the_providers_byte_for_byte(door, road, calling):
    call = calling(chat, door, Prefer="wait=60")
    road.until(call.done)

    answer, row = call.result(), Request.objects.get()

    line = json.loads(bytes(Answer.objects.get().line))
    assert answer.content in bytes(Answer.objects.get().line)
    assert json.loads(answer.content) == line["response"]["body"]
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.headers["Content-Location"] == f"/v1/chat/completions/{row.key}"
    assert answer.headers["X-Batcher-Request-Id"] == row.key


def test_call_that_is_not_answered_in_time_says_where_to_ask_again(door, road):
    answer = chat(door, Prefer="wait=1")

    row = Request.objects.get()
    told = json.loads(answer.content)
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.headers["Location"] == told["location"] == f"/v1/chat/completions/{row.key}"
    assert int(answer.headers["Retry-After"]) > 0
    assert (told["id"], told["status"], told["model"]) == (row.key, "queued", MINI)
    assert told["why"].startswith("It ")


def test_location_gives_the_answer_once_it_is_there(door, road, calling):
    pending = door.sdk.responses.create(model=MINI, input="Hi", extra_headers=ASYNC)
    wait = {"Prefer": "wait=60"}
    assert pending.status == "queued"

    call = calling(door.sdk.responses.retrieve, pending.id, extra_headers=wait)
    road.until(call.done)

    answer = call.result()
    assert (answer.status, answer.output_text) == ("completed", door.sdk.responses.retrieve(pending.id).output_text)  # fmt: skip
    assert answer.id.startswith("resp_")


def test_same_key_from_two_connections_is_one_request(door, road, calling):
    calls = [calling(chat, door, Prefer="wait=60", **{"Idempotency-Key": "k"}) for _ in range(2)]
    road.until(lambda: all(call.done() for call in calls))

    first, second = (call.result() for call in calls)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert Request.objects.count() == 1
    assert chat(door, **{"Idempotency-Key": "k"}).content == first.content


def test_same_key_for_another_call_is_refused(door):
    chat(door, **ASYNC, **{"Idempotency-Key": "k"})

    other = refusal(
        door.sdk.responses.create, model=MINI, input="Hi", extra_headers={"Idempotency-Key": "k"}
    )

    assert (other.status_code, other.code) == (400, "idempotency_key_reused")
    assert Request.objects.count() == 1


def test_key_of_one_api_key_is_none_of_anothers(door, door_of):
    other = door_of("ours")
    chat(door, **ASYNC, **{"Idempotency-Key": "k"})

    chat(other, **ASYNC, **{"Idempotency-Key": "k"})

    assert Request.objects.count() == 2


def test_call_that_the_sdk_tries_again_by_itself_is_one_request(door, road, calling):
    patient = door.sdk.with_options(max_retries=20, timeout=1)
    call = calling(patient.chat.completions.with_raw_response.create, **SAY_HI)
    road.until(stored())
    pause = threading.Event()
    while not waiting_calls():
        pause.wait(0.01)
    while waiting_calls():  # the first try is given up
        pause.wait(0.01)
    road.later(seconds=6)
    road.until(call.done)

    assert call.result().retries_taken >= 1
    assert Request.objects.count() == 1


def waiting_calls():
    return waiting._seated.total()


def test_calls_that_are_alike_stay_apart_when_they_are_tried_again(door):
    again = {"X-Stainless-Retry-Count": "1"}
    first = [json.loads(chat(door, **ASYNC).content)["id"] for _ in range(2)]
    call_names.forget()
    names = [Request.objects.get(key=key).custom_id for key in first]

    taken = {call_names._lost_one(names) for _ in first}

    assert taken == set(names)
    assert json.loads(chat(door, **ASYNC, **again).content)["id"] in first
    assert Request.objects.count() == 2


def test_a_new_call_that_was_refused_before_is_not_an_older_one(door, road, calling):
    call = calling(chat, door, Prefer="wait=60")
    road.until(call.done)
    with call_names._gate:
        call_names._held.update(dict.fromkeys(call_names._held, -1e9))  # given long ago

    chat(door, **ASYNC, **{"X-Stainless-Retry-Count": "1"})

    assert Request.objects.count() == 2


def test_beyond_the_waiters_limit_other_calls_still_answer(door, road, calling, settings):
    settings.BATCHER_WAITERS = 1
    waits = calling(chat, door, Prefer="wait=60", **{"Idempotency-Key": "k"})
    road.until(stored(), by=())

    refused = refusal(chat, door, Prefer="wait=60")

    assert (refused.status_code, refused.code) == (429, "too_many_waiting")
    assert int(refused.response.headers["Retry-After"]) > 0
    assert "1 calls wait" in refused.message
    assert Request.objects.count() == 1
    assert door.sdk.models.list().data
    assert chat(door, **ASYNC).status_code == 202
    road.until(waits.done)
    assert waits.result().status_code == 200


def test_no_key_takes_all_seats(door, door_of, road, calling, settings):
    settings.BATCHER_WAITERS, settings.BATCHER_WAITERS_PER_KEY_PERCENT = 3, 75
    calls = [calling(chat, door, Prefer="wait=60") for _ in range(2)]
    road.until(lambda: waiting_calls() == 2, by=())

    refused = refusal(chat, door, Prefer="wait=60")
    calls.append(calling(chat, door_of("theirs"), Prefer="wait=60"))

    assert (refused.status_code, refused.code) == (429, "too_many_waiting")
    assert "2 calls of this API key wait already, of 3" in refused.message
    road.until(lambda: all(call.done() for call in calls))
    assert [call.result().status_code for call in calls] == [200] * 3
    assert not waiting._seated


def test_repeat_of_an_answered_call_needs_no_seat(door, road, calling, settings):
    call = calling(chat, door, Prefer="wait=60", **{"Idempotency-Key": "k"})
    road.until(call.done)
    settings.BATCHER_WAITERS = 0

    again = chat(door, **{"Idempotency-Key": "k"})

    assert again.content == call.result().content


def test_error_of_the_provider_passes_through_and_is_not_tried_again(door, road, calling, provider):
    misbehave(provider, fault("fail_line", status=404))
    patient = door.sdk.with_options(max_retries=2)
    call = calling(refusal, patient.chat.completions.create, **SAY_HI, extra_headers=AT_ONCE)
    road.until(call.done)

    error = call.result()

    line = json.loads(bytes(Answer.objects.get().line))
    assert error.status_code == line["response"]["status_code"] == 404
    assert error.response.content in bytes(Answer.objects.get().line)
    assert error.response.headers["x-should-retry"] == "false"


def test_line_without_a_response_is_told_in_openais_shape(door, road, calling, provider):
    misbehave(provider, fault("line_error", error={"code": "odd", "message": "It broke"}))
    call = calling(refusal, chat, door, Prefer="wait=60")
    road.until(call.done)

    error = call.result()

    assert (error.status_code, error.code, error.body["message"]) == (502, "odd", "It broke")
    assert error.body["type"] == "server_error"


def test_answer_that_is_kept_no_longer_is_gone(door, road):
    row_id = json.loads(chat(door, **ASYNC).content)["id"]
    road.until(Answer.objects.exists)
    Answer.objects.all().delete()

    gone = refusal(door.sdk.chat.completions.retrieve, row_id)

    assert (gone.status_code, gone.code) == (410, "result_gone")


def test_request_that_is_deleted_meanwhile_ends_the_wait(door, road, calling):
    call = calling(refusal, chat, door, Prefer="wait=60")
    road.until(stored(), by=())
    Request.objects.all().delete()

    assert call.result(timeout=30).status_code == 404


def test_call_taken_back_tells_whoever_waits(door, road, calling):
    call = calling(refusal, chat, door, Prefer="wait=60")
    road.until(stored(), by=())
    door.sdk.chat.completions.delete(Request.objects.get().key)

    error = call.result(timeout=30)

    assert (error.status_code, error.code) == (409, "cancelled")
    assert Request.objects.get().state == "cancelled"


def test_background_words_cancel_too(door):
    pending = door.sdk.responses.create(model=MINI, input="Hi", extra_headers=ASYNC)

    assert door.sdk.responses.cancel(pending.id).status == "cancelled"
    refused = refusal(door.sdk.responses.cancel, pending.id)
    assert (refused.status_code, refused.code) == (400, "invalid_state")


WRONG = {
    "stream": (dict(SAY_HI, stream=True), {}, 400, "stream"),
    "no model": ({"messages": []}, {}, 400, "model"),
    "no object": ([], {}, 400, None),
    "wait": (SAY_HI, {"Prefer": "wait=soon"}, 400, "Prefer"),
    "max wait": (SAY_HI, {"X-Batcher-Max-Wait": "soon"}, 400, "X-Batcher-Max-Wait"),
    "priority": (SAY_HI, {"X-Batcher-Priority": "101"}, 400, "X-Batcher-Priority"),
    "custom id": (SAY_HI, {"X-Batcher-Custom-Id": "x" * 513}, 400, "X-Batcher-Custom-Id"),
    "two places": (
        SAY_HI,
        {"X-Batcher-Destination": "a", "X-Batcher-Webhook-Url": "https://example.com"},
        *(400, "X-Batcher-Webhook-Url"),
    ),
    "destination": (SAY_HI, {"X-Batcher-Destination": "nowhere"}, 400, "X-Batcher-Destination"),
    "key": (SAY_HI, {"Idempotency-Key": "x" * 256}, 400, None),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_openais_shape(door, name):
    body, headers, status, param = WRONG[name]

    error = refusal(
        door.sdk.post, "/chat/completions", body=body, cast_to=object, options={"headers": headers}
    )

    assert error.status_code == status
    assert error.body["type"] == "invalid_request_error"
    assert error.param == param
    assert not Request.objects.exists()


def test_header_that_is_no_ascii_is_refused(door, live_server):
    headers = {"Authorization": f"Bearer {door.sdk.api_key}", "X-Batcher-Account": "\xfc"}

    answer = requests.post(
        f"{live_server.url}/v1/responses", json=SAY_HI, headers=headers, timeout=9
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Batcher-Account")


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"m"}, "priority": 9', b"\xff"])
def test_bytes_that_are_no_json_are_refused(door, body):
    error = refusal(door.sdk.post, "/responses", content=body, cast_to=object)

    assert error.status_code == 400
    assert not Request.objects.exists()


def test_headers_say_what_becomes_of_the_request(door):
    headers = {"X-Batcher-Custom-Id": "mine/7", "X-Batcher-Priority": "-5"}
    url = "https://example.com/results"

    chat(door, **ASYNC, **headers, **{"X-Batcher-Webhook-Url": url})

    row = Request.objects.get()
    assert (row.custom_id, row.priority, row.destination.url) == ("mine/7", -5, url)
    assert row.seal_by == row.created_at


def test_key_that_may_not_read_can_send_but_neither_wait_nor_see(door_of, road):
    door, named = door_of("ours", scopes=[Scope.SUBMIT]), {**ASYNC, "Idempotency-Key": "k"}

    assert refusal(chat, door).code == "insufficient_scope"
    assert chat(door, **named).status_code == 202
    road.until(Answer.objects.exists)
    again = chat(door, **named)
    assert (again.status_code, json.loads(again.content)["status"]) == (202, "completed")


def test_key_is_bound_here_as_elsewhere(door_of):
    door = door_of("ours")
    ApiKey.objects.update(allowed_models=["other-*"])

    error = refusal(chat, door)

    assert (error.status_code, error.code, error.param) == (403, "model_not_allowed", "model")


def test_maintenance_takes_no_calls(door):
    Flag.objects.update_or_create(name=Flag.MAINTENANCE, defaults={"is_on": True})

    error = refusal(chat, door)

    assert (error.status_code, error.code) == (503, "maintenance_mode")
    assert int(error.response.headers["Retry-After"]) > 0


def test_requests_of_other_projects_and_endpoints_are_not_there(door, door_of):
    row_id = json.loads(chat(door, **ASYNC).content)["id"]

    assert refusal(door_of("theirs").sdk.chat.completions.retrieve, row_id).status_code == 404
    assert refusal(door.sdk.responses.retrieve, row_id).status_code == 404
