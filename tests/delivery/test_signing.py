"""Signatures against the standard's known answer and its own library."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from delivery.due import message_id
from delivery.event_models import new_event_key
from delivery.signing import new_secret, sign, signing_key
from tests.batching.rows import a_request

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
EXPECTED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(secret, at):
    return sign(signing_key(secret), ID, int(at.timestamp()), BODY)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
def test_the_known_answer_comes_out_in_any_zone(zone):
    assert signed(SECRET, datetime.fromtimestamp(1614265330, zone)) == EXPECTED


def test_the_zone_of_the_machine_does_not_matter(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert signed(SECRET, datetime.fromtimestamp(1614265330, UTC)) == EXPECTED
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_library_verifies_what_a_new_secret_signs():
    secret, now = new_secret(), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(signing_key(secret), "msg_1", int(now.timestamp()), BODY),
    }

    Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)


def test_secrets_are_long_and_never_the_same():
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert all(secret.startswith("whsec_") and len(secret) == 6 + 44 for secret in secrets)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_###", "whsec_abc"])
def test_what_is_no_secret_is_refused_without_being_quoted(secret):
    with pytest.raises(ValueError, match="the signing secret is") as caught:
        signing_key(secret)

    assert "abc" not in str(caught.value)
    assert "#" not in str(caught.value)


def test_a_secret_without_its_prefix_signs_alike():
    at = datetime.fromtimestamp(1614265330, UTC)

    assert signed(SECRET.removeprefix("whsec_"), at) == EXPECTED


@pytest.mark.parametrize("size", [24, 32, 64])
def test_the_library_agrees_on_secrets_of_every_size(size):
    secret = "whsec_" + base64.b64encode(bytes(range(200, 200 - size, -1))).decode()
    at = datetime.fromtimestamp(1614265330.9, UTC)

    assert signed(secret, at) == Webhook(secret).sign(ID, at, BODY.decode())


@pytest.mark.django_db
def test_no_id_that_is_signed_holds_a_dot_or_a_clients_words():
    request = a_request(custom_id="a.b")
    ids = [message_id(request), new_event_key()]

    assert all(re.fullmatch(r"(req|evt)_[0-9a-f]{32}(-1)?", one) for one in ids)
