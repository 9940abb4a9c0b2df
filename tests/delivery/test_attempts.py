"""What is written down of a try over a real socket, and what never is."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from batching.models.projects import new_signing_secret
from delivery import dispatch
from delivery.models import Attempt
from delivery.outcome import Code, Message
from delivery.rabbitmq import Addressed, publish
from tests.batching.rows import a_destination
from tests.delivery.receivers import answering
from tests.delivery.results import a_result, listening

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


def tried_at(url):
    """Send one result there and return the attempt as it is stored."""
    place = a_destination(url=url, secret=new_signing_secret())
    a_result(place, due_at=timezone.now() - timedelta(seconds=1))
    assert dispatch.send_due() == 1
    return Attempt.objects.get(destination=place)


async def echoing(visit):
    """Answer with the request, as an error page in debug mode does."""
    while request := await visit.request():
        echo = f"{request.first_line} {request.headers}".encode() + b"\x1b[2J" + request.body[:9]
        head = f"HTTP/1.1 500 Oops\r\nset-cookie: sid=abc\r\ncontent-length: {len(echo)}\r\n\r\n"
        await visit.say(head.encode() + echo)


def test_an_echo_of_the_request_is_kept_without_its_secrets():
    with listening(echoing) as receiver:
        attempt = tried_at(receiver.url("/hook?token=s3cr3t"))

    signature = receiver.requests[0].headers["webhook-signature"]
    kept = " ".join(map(str, Attempt.objects.values_list().get(pk=attempt.pk)))
    assert "POST /hook?[redacted] HTTP/1.1" in attempt.answer
    assert "\\x1b[2J" in attempt.answer
    assert all(private not in kept for private in (signature, "s3cr3t", "sid=abc"))
    assert attempt.destination.secret not in kept


def test_when_what_and_where_to_are_kept():
    before = timezone.now()
    with listening(answering("200 OK")) as receiver:
        attempt = tried_at(receiver.url())

    assert before <= attempt.started_at <= attempt.ended_at <= timezone.now()
    assert (attempt.outcome, attempt.address, attempt.error_class) == ("delivered", "127.0.0.1", "")
    assert attempt.body_size == len(receiver.requests[0].body)


def test_the_class_of_what_went_wrong_is_kept():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    attempt = tried_at(f"http://127.0.0.1:{port}/?token=s3cr3t")

    assert (attempt.outcome, attempt.error_class) == (
        Code.CONNECTION_ERROR,
        "ClientConnectorError",
    )
    assert (attempt.address, attempt.status) == ("127.0.0.1", None)


def test_a_broker_that_is_away_names_its_error_too():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    message = Addressed(message=Message(id="m", body=b"{}"), routing_key="q")
    (outcome,) = publish(f"amqp://127.0.0.1:{port}/", [message])

    assert outcome.code == Code.CONNECTION_ERROR
    assert outcome.error
    assert outcome.started_at
