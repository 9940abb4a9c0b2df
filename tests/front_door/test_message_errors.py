"""What the Anthropic door does not take, as the SDK raises it and as bytes on the wire."""

from __future__ import annotations

import http.client
import json
import uuid
from urllib.parse import urlsplit

import anthropic
import pytest

from batching.api.anthropic import taking
from batching.models import ClientFile, Flag, Submission
from tests.front_door.messages import HAIKU, ask

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/v1/messages/batches"


def post(door, body: bytes, path: str = PATH, **headers) -> tuple[int, dict, dict]:
    """POST bytes as they are; returns status, headers by lower-case name, JSON."""
    to = http.client.HTTPConnection(urlsplit(door.url).netloc, timeout=30)
    sent = {"x-api-key": door.key, "content-type": "application/json", **headers}
    try:
        to.request("POST", path, body, sent)
        answer = to.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, named, json.loads(answer.read())
    finally:
        to.close()


def body(*requests, **more) -> bytes:
    return json.dumps({"requests": list(requests), **more}).encode()


ONE = json.dumps(ask("a")).encode()
WRONG = [
    pytest.param(b"", "not valid JSON", id="empty"),
    pytest.param(b"{}", "requests: Field required", id="no-requests"),
    pytest.param(b"[]", "not valid JSON", id="array"),
    pytest.param(b"7", "not valid JSON", id="number"),
    pytest.param(b'{"requests": []}', "requests: List should have at least 1", id="none"),
    pytest.param(b'{"requests": {}}', "[ is expected", id="object"),
    pytest.param(b'{"requests": [%b' % ONE, "it ends too soon", id="truncated"),
    pytest.param(b'{"requests": [%b]' % ONE, "it ends too soon", id="open"),
    pytest.param(b'{"requests": [{"custom_id": "a', "it ends too soon", id="in-a-text"),
    pytest.param(b'{"requests": [%b,]}' % ONE, "a value is expected", id="comma"),
    pytest.param(b'{"requests": [%b]} {}' % ONE, "nothing may follow", id="more"),
    pytest.param(
        b'{"requests": [%b], "requests": [%b]}' % (ONE, ONE), "more than once", id="twice"
    ),
    pytest.param(b'{"requests": [7]}', "requests.0: Input should be an object", id="no-object"),
    pytest.param(
        b'{"requests": [%b, {"custom_id": "\xff"}]}' % ONE, "requests.1: not UTF-8", id="utf-8"
    ),
    pytest.param(body(ask("a")).replace(b"64", b"NaN"), "requests.0: not valid JSON", id="nan"),
    pytest.param(
        body(ask("a")).replace(b"64", b'64,"x":1e999'), "requests.0.params.x: ", id="endless"
    ),
    pytest.param(
        b'{"requests": [' + b"[" * 9_999 + b"]" * 9_999 + b"]}", "deeper than 64", id="deep"
    ),
    pytest.param(
        body(ask("a")).replace(b"64", b'64,"x":' + b"[" * 66 + b"]" * 66),
        "requests.0.params: Body is nested deeper than 64",
        id="deep-params",
    ),
    pytest.param(body(ask("a"), surprise=1), "surprise: Extra inputs", id="unknown"),
    pytest.param(body(ask("a", surprise=1)), "requests.0.surprise: Extra inputs", id="extra"),
    pytest.param(body({"custom_id": "a"}), "requests.0.params: Field required", id="params"),
    pytest.param(body({"params": {}}), "requests.0.custom_id: Field required", id="custom-id"),
    pytest.param(
        body({"custom_id": "a", "params": 7}), "requests.0.params: Input should be", id="no-params"
    ),
    pytest.param(
        body({"custom_id": "a", "params": {"model": HAIKU}}),
        "requests.0.params.max_tokens: Field required",
        id="max-tokens",
    ),
    pytest.param(
        body({"custom_id": "a", "params": {"model": HAIKU, "max_tokens": 0}}),
        "requests.0.params.max_tokens: Input should be a whole number",
        id="no-tokens",
    ),
    pytest.param(
        body({"custom_id": "a", "params": {"max_tokens": 5}}),
        "requests.0.params.model: Field required",
        id="model",
    ),
    pytest.param(
        body({"custom_id": "a", "params": {"model": HAIKU, "max_tokens": 5, "stream": True}}),
        "requests.0.params.stream: ",
        id="stream",
    ),
    pytest.param(body(ask("a" * 65)), "requests.0.custom_id: String should match", id="long-id"),
    pytest.param(body(ask("a\n")), "requests.0.custom_id: String should match", id="id"),
    pytest.param(
        body(ask("a"), ask("b"), ask("a")), "requests.2.custom_id: the same one", id="same-id"
    ),
    pytest.param(
        body(ask("a"), delivery_config={"type": "destination", "name": "nobody"}),
        "delivery_config.name: there is no destination 'nobody'",
        id="place",
    ),
    pytest.param(
        body(ask("a", delivery_config={"type": "pigeon"})), "requests.0.delivery_config", id="own"
    ),
    pytest.param(body(ask("a", account="nobody")), "requests.0.account: No account", id="account"),
]


@pytest.mark.parametrize(("sent", "message"), WRONG)
def test_a_wrong_body_is_told_at_once_and_leaves_nothing(message_door, tmp_path, sent, message):
    status, headers, told = post(message_door, sent)

    assert (status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert message in told["error"]["message"]
    assert told["request_id"] == headers["request-id"]
    assert not Submission.objects.exists()
    assert not ClientFile.objects.exists()


def test_the_sdk_raises_what_it_raises_at_anthropic(message_door):
    with pytest.raises(anthropic.BadRequestError) as caught:
        message_door.create(ask("a b"))

    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")
    assert "requests.0.custom_id" in caught.value.message


def test_a_key_may_come_in_either_header(message_door):
    old = anthropic.Anthropic(
        base_url=message_door.url,
        api_key="unused",
        max_retries=0,
        default_headers={"x-api-key": message_door.key, "authorization": anthropic.Omit()},
    )
    with old:
        made = old.messages.batches.create(requests=[ask("a")])

    assert message_door.batches.retrieve(made.id).id == made.id


@pytest.mark.parametrize(
    "headers", [{"x-api-key": "wrong"}, {"x-api-key": ""}, {"authorization": "Bearer wrong"}]
)
def test_without_a_key_nobody_gets_in(message_door, headers):
    status, _, told = post(message_door, body(ask("a")), **headers)

    assert (status, told["error"]["type"]) == (401, "authentication_error")


def test_keys_open_what_their_scopes_and_bounds_allow(message_door_of):
    with pytest.raises(anthropic.PermissionDeniedError, match="scope"):
        message_door_of("ours", scopes=["read"]).create(ask("a"))
    bound = message_door_of("ours", allowed_models=["claude-sonnet*"])

    with pytest.raises(anthropic.PermissionDeniedError, match=r"requests\.1\.params\.model"):
        bound.create(ask("a", model="claude-sonnet-4-5"), ask("b"))


def test_others_batches_are_not_there(message_door, message_door_of):
    batch = message_door.create(ask("a"))
    stranger = message_door_of("theirs").batches

    for call in (stranger.retrieve, stranger.cancel, stranger.delete, stranger.results):
        with pytest.raises(anthropic.NotFoundError):
            call(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        list(stranger.list(after_id=batch.id))


def test_the_same_call_with_an_idempotency_key_makes_one_batch(message_door):
    name = {"idempotency-key": uuid.uuid4().hex}
    first = post(message_door, body(ask("a")), **name)
    again = post(message_door, body(ask("a")), **name)
    other = post(message_door, body(ask("b")), **name)

    assert first[2] == again[2]
    assert again[1]["idempotent-replayed"] == "true"
    assert (other[0], other[2]["error"]["type"]) == (400, "invalid_request_error")
    assert Submission.objects.count() == 1


def test_too_much_is_refused_and_the_sender_hears_of_it(message_door, monkeypatch):
    monkeypatch.setattr(taking, "MAX_REQUESTS", 2)
    monkeypatch.setattr(taking, "MAX_REQUEST_BYTES", 1_000_000)

    assert post(message_door, body(*map(ask, "abc")))[0] == 400
    with pytest.raises(anthropic.RequestTooLargeError) as caught:
        message_door.create(ask("a"), ask("b", "x" * 4_000_000))
    assert (caught.value.type, caught.value.status_code) == ("request_too_large", 413)
    assert "requests.1" in caught.value.message


def test_a_key_that_owes_lines_waits(message_door_of):
    slow = message_door_of("ours", lines_per_minute=1)
    slow.create(*(ask(f"r-{n}") for n in range(5)))

    with pytest.raises(anthropic.RateLimitError) as caught:
        slow.create(ask("b"))
    assert int(caught.value.response.headers["retry-after"]) > 60


def test_nothing_is_taken_in_maintenance(message_door):
    Flag.objects.create(name=Flag.MAINTENANCE, is_on=True)

    with pytest.raises(anthropic.InternalServerError) as caught:
        message_door.create(ask("a"))
    assert (caught.value.status_code, caught.value.type) == (503, "api_error")


@pytest.mark.parametrize("path", ["/v1/messages/nothing", "/v1/messages/batches/x/y"])
def test_a_path_that_is_none_is_told_in_the_same_words(message_door, path):
    status, headers, told = post(message_door, b"{}", path)

    assert (status, told["error"]["type"]) == (404, "not_found_error")
    assert told["request_id"] == headers["request-id"]


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"after_id": "x", "before_id": "y"}, {"colour": "red"}]
)
def test_a_wrong_query_is_refused(message_door, query):
    with pytest.raises(anthropic.BadRequestError):
        message_door.batches.list(extra_query=query)


def test_beta_clients_are_served_as_well(message_door):
    made = message_door.sdk.beta.messages.batches.create(requests=[ask("a")])

    assert message_door.sdk.beta.messages.batches.retrieve(made.id).id == made.id
