"""Results that are too large for their destination: told without the body, and fetched whole."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import timedelta

import pika
import pytest
from django.test import Client
from django.utils import timezone

from batching.models import ApiKey
from batching.models.projects import new_signing_secret
from delivery import dispatch, due
from delivery.envelope import render, render_within
from tests.batching.rows import NOW, a_destination, a_project, a_request, an_answer
from tests.delivery.receivers import answering
from tests.delivery.results import answer_of, listening

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://batcher.example/api/requests/req_1/result?attempt=1"


def a_large_result(size, destination=None, **fields):
    """Return a due request whose answer's body has so many characters, and the answer."""
    fields = {"state": "processed", "due_at": timezone.now() - timedelta(seconds=1)} | fields
    request = a_request(destination=destination or a_destination(), **fields)
    response = {"status_code": 200, "request_id": "r1", "body": {"output": "x" * size}}
    line = {"id": "batch_req_1", "custom_id": request.key, "response": response, "error": None}
    return request, an_answer(request, json.dumps(line).encode())


def test_what_is_too_large_is_told_whole_but_for_the_body():
    request, answer = a_large_result(5_000)
    whole = render(request, answer, b'{"a":"b"}')

    told = json.loads(render_within(4_000, URL, request, answer, b'{"a":"b"}'))

    expected = json.loads(whole)
    expected["response"]["body"] = None
    facts = {"result_url": URL, "size_bytes": len(whole)}
    assert told == expected | facts | {"sha256": hashlib.sha256(whole).hexdigest()}


def test_what_fits_to_the_byte_is_sent_as_it_is():
    request, answer = a_large_result(100)
    whole = render(request, answer, b"{}")

    assert render_within(len(whole), URL, request, answer, b"{}") == whole
    assert b"result_url" in render_within(len(whole) - 1, URL, request, answer, b"{}")


@pytest.mark.parametrize(
    ("response", "head"),
    [
        (b"null", None),
        (b'{"status_code":200,"request_id":"\\ud800","body":1}', {"status_code": 200}),
        (b'{"status_code":"odd","body":1}', {"status_code": 200}),
    ],
    ids=["none", "half a surrogate pair", "another make"],
)
def test_a_response_that_is_odd_loses_its_body_all_the_same(response, head):
    request = a_request(state="processed")
    line = b'{"id":"1","response":' + response + b',"error":{"text":"' + b"y" * 9_000 + b'"}}'
    answer = an_answer(request, line)

    told = json.loads(render_within(100, URL, request, answer, b"{}"))

    assert (told["response"] and told["response"]["status_code"]) == (head and 200)
    assert told["error"] == {"code": "", "message": ""}


def test_the_limit_is_the_destinations_own_or_that_of_its_kind(settings):
    settings.BATCHER_WEBHOOK_MAX_INLINE_BYTES = 1_000
    settings.BATCHER_RABBITMQ_MAX_INLINE_BYTES = 3_000
    places = {
        "usual": a_destination(),
        "own": a_destination(max_inline_bytes=3_000),
        "queue": a_destination(type="rabbitmq", url="", queue="q"),
        "small queue": a_destination(type="rabbitmq", url="", queue="p", max_inline_bytes=1_000),
    }
    for place in places.values():
        a_large_result(2_000, place)
    parcels = due.load(due.claim({p.pk: 9 for p in places.values()}, now=timezone.now()))

    sizes = {p.claim.destination_id: len(p.message.body) for p in parcels}
    assert {name for name, p in places.items() if sizes[p.pk] < 1_000} == {"usual", "small queue"}


def test_a_receiver_fetches_exactly_what_the_thin_message_says(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    settings.BATCHER_WEBHOOK_MAX_INLINE_BYTES = 50_000
    secret = ApiKey.issue(a_project(), "reader", scopes=["read"])[1]
    with listening(answering("200 OK")) as receiver:
        place = a_destination(url=receiver.url("/hook"), secret=new_signing_secret())
        request, _ = a_large_result(300_000, place)
        dispatch.send_due()

    told = json.loads(receiver.requests[0].body)
    path = told["result_url"].removeprefix(settings.BATCHER_URL)
    got = Client().get(path, headers={"Authorization": f"Bearer {secret}"}).getvalue()
    assert (len(got), hashlib.sha256(got).hexdigest()) == (told["size_bytes"], told["sha256"])
    line = json.loads(bytes(answer_of(request).line))
    assert json.loads(got)["response"] == line["response"]


@pytest.mark.service
def test_what_the_broker_would_refuse_goes_thin(settings, rabbitmq_url):
    settings.RABBITMQ_URL = rabbitmq_url
    name = f"batcher-test-{uuid.uuid4().hex[:12]}"
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(name, exclusive=True)
        a_large_result(17 * 1024 * 1024, a_destination(type="rabbitmq", url="", queue=name))
        dispatch.send_due()
        _, properties, body = channel.basic_get(name, auto_ack=True)

    assert json.loads(body)["size_bytes"] > 17 * 1024 * 1024
    assert len(body) < 2_000
    assert properties.message_id.endswith("-1")


def test_public_url_is_where_the_whole_is_fetched(settings):
    settings.BATCHER_PUBLIC_URL = "https://batcher.example"
    request = a_request(custom_id="a/b c", due_at=NOW)

    expected = f"https://batcher.example/api/requests/{request.key}/result?attempt=1"
    assert due.result_url(request) == expected
