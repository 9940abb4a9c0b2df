"""What one destination asks for, and what the installation grants, as a receiver sees it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batching.models.projects import new_signing_secret
from delivery import dispatch
from delivery.models import Attempt
from delivery.outcome import Code
from delivery.webhook import check_headers
from tests.batching.rows import a_destination
from tests.delivery.certificates import Authority
from tests.delivery.receivers import answering, hanging
from tests.delivery.results import a_result, listening

pytestmark = pytest.mark.django_db(transaction=True)
OK = answering("204 No Content")


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8", "::1/128"]


def sent_to(receiver, *, url="", **fields):
    """Deliver one result to the receiver; return the try and what came in."""
    secret = new_signing_secret()
    place = a_destination(url=url or receiver.url("/hook"), **{"secret": secret} | fields)
    a_result(place, due_at=timezone.now() - timedelta(seconds=1))
    dispatch.send_due()
    return Attempt.objects.get(destination=place), receiver.requests


def test_headers_of_its_own_go_out_and_are_not_kept_when_the_receiver_echoes_them():
    headers = json.dumps({"Authorization": "Bearer hush-hush", "X-Tenant": "seven"})
    with listening(answering("200 OK", body=b"you said Bearer hush-hush")) as receiver:
        attempt, (request,) = sent_to(receiver, headers=headers)

    assert request.headers["authorization"] == "Bearer hush-hush"
    assert request.headers["x-tenant"] == "seven"
    assert attempt.answer == "you said [redacted]"


def test_a_secret_that_is_rotated_out_signs_beside_the_new_one_until_its_time():
    old, new = new_signing_secret(), new_signing_secret()
    now = timezone.now()
    with listening(OK) as receiver:
        rotated = {"secret": new, "previous_secret": old}
        sent_to(receiver, previous_secret_until=now + timedelta(hours=1), **rotated)
        past = {"previous_secret_until": now - timedelta(hours=1)}
        _, (both, late) = sent_to(receiver, url=receiver.url("/2"), **rotated, **past)

    signatures = both.headers["webhook-signature"].split()
    only_first = both.headers | {"webhook-signature": signatures[0]}
    assert len(signatures) == 2
    Webhook(new).verify(both.body, only_first)
    Webhook(old).verify(both.body, both.headers)
    Webhook(new).verify(late.body, late.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(late.body, late.headers)


def test_a_destination_has_a_deadline_of_its_own():
    with listening(hanging) as receiver:
        attempt, _ = sent_to(receiver, timeout_s=0.2)

    assert attempt.outcome == Code.TIMEOUT
    assert attempt.duration_s < 10  # the installation's own is 15 s


def test_a_private_authority_is_trusted_when_the_environment_names_it(settings, tmp_path):
    authority = Authority(tmp_path)
    with listening(OK, tls=authority.server("localhost")) as receiver:
        url = receiver.url("/1", host="localhost", scheme="https")
        before, _ = sent_to(receiver, url=url)
        settings.BATCHER_WEBHOOK_CA_FILE = authority.bundle
        after, _ = sent_to(receiver, url=url.replace("/1", "/2"))

    assert before.outcome == Code.TLS_ERROR
    assert after.outcome == Code.DELIVERED


def test_an_odd_port_beyond_the_openings_is_reached_only_when_it_is_listed(settings, monkeypatch):
    from batching import reach

    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = []
    monkeypatch.setattr(reach, "_DENIED", ())  # this host stands for the internet
    settings.BATCHER_WEBHOOK_ALLOW_HTTP = True
    with listening(OK) as receiver:
        shut, _ = sent_to(receiver)
        settings.BATCHER_WEBHOOK_PORTS = [receiver.port]
        opened, _ = sent_to(receiver, url=receiver.url("/2"))
        settings.BATCHER_WEBHOOK_ALLOW_HTTP = False
        plain, requests = sent_to(receiver, url=receiver.url("/3"))

    assert (shut.outcome, opened.outcome) == (Code.BLOCKED_ADDRESS, Code.DELIVERED)
    assert plain.outcome == Code.BLOCKED_ADDRESS
    assert "use https://" in plain.detail
    assert len(requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(f"x-{n}", "v") for n in range(21)],
        [("x-a", "v" * 8192)],
        [("x-a", "v"), ("X-A", "w")],
    ],
    ids=["many", "large", "twice"],
)
def test_headers_of_a_destination_are_few_small_and_given_once(headers):
    with pytest.raises(ValueError, match="header"):
        check_headers(headers)
