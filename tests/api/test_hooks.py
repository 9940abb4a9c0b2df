"""OpenAI's own webhooks: believed when signed, heard once, and telling nobody what is ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from batching import notices
from batching.models import Account, Batch, Notice
from sandbox.webhooks import signed
from tests.api.conftest import first_error
from tests.batching.rows import a_batch, a_lane, an_account

pytestmark = pytest.mark.django_db

SECRET = "whsec_c3ludGhldGljLXRlc3Qtc2VjcmV0LTAxMjM0NTY3ODk="
OTHER = "whsec_b3RoZXItc3ludGhldGljLXNlY3JldC0wMTIzNDU2Nzg5"
HOUR = timedelta(hours=1)


@pytest.fixture
def account():
    return an_account("hooked", kind="openai", webhook_secret=SECRET)


@pytest.fixture
def batch(account):
    return a_batch(
        lane=a_lane(account=account),
        state="processing",
        provider_batch_id="batch_1",
        next_attempt_at=timezone.now() + HOUR,
    )


def event(batch_id="batch_1", type_="batch.completed"):
    return json.dumps({"id": "evt_1", "type": type_, "data": {"id": batch_id}}).encode()


def tell(api, body=None, *, secret=SECRET, message_id="wh_1", at=None, path="/hooks/openai"):
    body = event() if body is None else body
    headers = signed(secret, message_id, at or datetime.now(UTC), body)
    headers.pop("content-type")
    return api.post(path, body, **headers)


def is_due(batch):
    return Batch.objects.get(pk=batch.pk).next_attempt_at <= timezone.now()


@pytest.mark.parametrize("type_", ["batch.completed", "batch.failed", "batch.expired"])
def test_a_batch_that_ended_is_looked_at_at_once(anonymous, batch, type_):
    answer = tell(anonymous, event(type_=type_))

    assert (answer.status_code, answer.content) == (204, b"")
    assert is_due(batch)


def test_an_account_has_a_path_of_its_own(anonymous, batch, account):
    other = an_account("other", kind="openai", webhook_secret=OTHER)

    assert tell(anonymous, path=f"/hooks/openai/{other.pk}").status_code == 400
    assert tell(anonymous, path=f"/hooks/openai/{account.pk}").status_code == 204
    assert is_due(batch)


def test_an_event_that_comes_again_is_heard_once(anonymous, batch):
    tell(anonymous)
    Batch.objects.update(next_attempt_at=timezone.now() + HOUR)

    assert tell(anonymous).status_code == 204
    assert not is_due(batch)
    assert tell(anonymous, message_id="wh_2").status_code == 204
    assert is_due(batch)


@pytest.mark.parametrize(
    "body",
    [event("batch_unknown"), event(type_="response.completed"), b'{"type": "batch.completed"}'],
    ids=["unknown-batch", "other-event", "no-subject"],
)
def test_what_is_none_of_ours_is_answered_the_same(anonymous, batch, body):
    assert tell(anonymous, body).status_code == 204
    assert not is_due(batch)


def test_another_accounts_batch_is_not_woken(anonymous, batch):
    an_account("other", kind="openai", webhook_secret=OTHER)

    assert tell(anonymous, secret=OTHER).status_code == 204
    assert not is_due(batch)


def wrong(**changes):
    def call(api):
        body = event()
        headers = {**signed(SECRET, "wh_1", datetime.now(UTC), body), **changes}
        headers.pop("content-type")
        return api.post("/hooks/openai", body, **{k: v for k, v in headers.items() if v})

    return call


@pytest.mark.parametrize(
    "call",
    [
        lambda api: tell(api, secret=OTHER),
        lambda api: tell(api, at=datetime.now(UTC) - timedelta(minutes=6)),
        lambda api: tell(api, at=datetime.now(UTC) + timedelta(minutes=6)),
        lambda api: tell(api, path="/hooks/openai/999"),
        lambda api: tell(api, path="/hooks/openai/x"),
        lambda api: api.post("/hooks/openai", event()),
        wrong(**{"webhook-id": "wh_9"}),
        wrong(**{"webhook-signature": "v1"}),
        wrong(**{"webhook-signature": "v1,ä"}),
        wrong(**{"webhook-signature": "v2,AAAA"}),
        wrong(**{"webhook-timestamp": "soon"}),
        wrong(**{"webhook-timestamp": "inf"}),
    ],
    ids=[
        *("secret", "old", "ahead", "account", "no-account", "bare", "other-id", "no-pair"),
        *("no-base64", "version", "no-time", "no-end"),
    ],
)
def test_what_is_not_rightly_signed_is_refused_alike(anonymous, batch, call):
    answer = call(anonymous)

    assert (answer.status_code, first_error(answer)["code"]) == (400, "wrong_signature")
    assert not Notice.objects.exists()
    assert not is_due(batch)


def test_an_account_without_a_secret_takes_nothing(anonymous, batch):
    Account.objects.update(webhook_secret="")

    assert tell(anonymous).status_code == 400


def test_a_body_is_bounded(anonymous, account):
    assert tell(anonymous, b"x" * 65_537).status_code == 413


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"type": 5}'])
def test_a_signed_body_that_is_no_event_is_told(anonymous, account, body):
    assert (tell(anonymous, body).status_code, Notice.objects.count()) == (400, 0)


def test_one_of_several_signatures_is_enough(anonymous, batch):
    body = event()
    headers = signed(SECRET, "wh_1", datetime.now(UTC), body)
    both = f"v1,AAAA {headers['webhook-signature']}"

    assert wrong(**{"webhook-signature": both})(anonymous).status_code == 204


def test_the_known_answer_of_openais_sdk(monkeypatch):
    body = (
        b'{"id":"evt_test_0001","object":"event","type":"batch.completed","created_at":1790000000,'
        b'"data":{"id":"batch_test_0001"}}'
    )
    headers = signed(SECRET, "wh_test_0001", datetime.fromtimestamp(1790000000, UTC), body)

    assert headers["webhook-signature"] == "v1,07c4hE8V18+bk0hMH7LgfUMqgIB+U+b8quq0asqD6OI="


def test_a_secret_without_the_prefix_is_used_as_it_is(anonymous, batch):
    Account.objects.update(webhook_secret="a plain secret of some length")
    encoded = "whsec_YSBwbGFpbiBzZWNyZXQgb2Ygc29tZSBsZW5ndGg="

    assert tell(anonymous, secret=encoded).status_code == 204


@pytest.mark.parametrize("secret", ["whsec_", "whsec_???", "short", "whsec_AAAA"])
def test_a_secret_that_can_not_be_one_is_named(secret):
    assert notices.secret_problem(secret)


def test_notices_that_can_not_come_again_are_dropped(account):
    now = timezone.now()
    for days in (1, 3, 5):
        Notice.objects.create(
            account=account, message_id=str(days), came_at=now - timedelta(days=days)
        )

    assert Notice.objects.prune(now) == 1
    assert set(Notice.objects.values_list("message_id", flat=True)) == {"1", "3"}


def test_the_secret_is_stored_encrypted(account):
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT webhook_secret FROM batching_account")
        assert "c3ludGhldGlj" not in cursor.fetchone()[0]
