"""An account's health, what it has at its provider, its switch, and a new key."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import responses
from django.urls import reverse
from django.utils import timezone

from batching import gateway
from batching.models import Account, AuditEntry
from batching.providers.base import ProviderError, Trouble
from tests.batching.rows import NOW, a_batch, a_lane, an_account

pytestmark = pytest.mark.django_db
MODELS = "http://127.0.0.1:9/v1/models"
WHY = {"confirmed": "yes", "reason": "the key leaked"}


def text_of(answer) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def page(account) -> str:
    return reverse("admin:batching_account_change", args=[account.pk])


def press(client, account, move, **answers):
    url = reverse(f"admin:batching_account_{move}_one", args=[account.pk])
    return client.post(url, WHY | answers)


def test_the_page_tells_health_use_and_abilities(as_):
    account = an_account(max_batches_in_flight=5, max_requests=700)
    Account.objects.update(last_success_at=timezone.now() - timedelta(hours=2))
    lane = a_lane(account=account)
    a_batch(lane=lane, state="processing", request_count=40)
    a_batch(lane=lane, state="uploaded")

    text = text_of(as_("viewer").get(page(account)))

    for words in ("It works.", "Last success 2 h", "Batches at the provider 1 of 5", "Requests in them 40",
                  "Batches in line 1", "Requests in one batch 700", "/v1/responses"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "Nothing was asked of its provider yet"),
        ({"is_enabled": False}, "It is off"),
        ({"silent_since": NOW}, "Its provider does not answer"),
        ({"last_error": "401", "last_error_class": "credentials, 401"}, "rotate the key"),
        ({"paused_at": NOW, "pause_reason": "by user anna: costs"}, "Paused by user anna: costs"),
    ],
)
def test_each_trouble_says_what_happened_and_what_to_do(as_, facts, words):
    account = an_account()
    Account.objects.update(**facts)

    assert words in text_of(as_("viewer").get(page(account)))


def test_the_list_costs_the_same_queries_however_many_accounts(as_, django_assert_max_num_queries):
    for n in range(8):
        a_batch(lane=a_lane(account=an_account(f"account-{n}")), state="processing")
    client = as_("viewer")
    url = reverse("admin:batching_account_changelist")
    client.get(url)

    with django_assert_max_num_queries(12):
        assert "0 requests" in text_of(client.get(url))


def test_success_is_noted_to_the_minute_and_ends_trouble():
    account = an_account()
    error = ProviderError("no", trouble=Trouble.CREDENTIALS, status=401, code="invalid_api_key")
    gateway.note_trouble(account, error, NOW)
    account.refresh_from_db()
    assert account.last_error_class == "credentials, 401, invalid_api_key"

    for seconds in (0, 20, 90):
        gateway.note_success(account, NOW + timedelta(seconds=seconds))

    account.refresh_from_db()
    assert (account.last_error, account.last_error_class) == ("", "")
    assert account.last_success_at == NOW + timedelta(seconds=90)


def test_success_within_the_minute_asks_the_database_nothing(django_assert_num_queries):
    account = an_account(last_success_at=NOW)

    with django_assert_num_queries(0):
        gateway.note_success(account, NOW + timedelta(seconds=59))


def test_an_account_is_switched_off_and_on_with_a_reason(as_):
    account = an_account()
    client = as_("admin")

    press(client, account, "switch_off")
    account.refresh_from_db()
    assert account.state == "off"
    press(client, account, "switch_on")
    account.refresh_from_db()

    assert account.state == "open"
    told = AuditEntry.objects.filter(action__startswith="account.switch").order_by("pk")
    assert [(e.action, e.reason) for e in told] == [
        ("account.switch_off", "the key leaked"),
        ("account.switch_on", "the key leaked"),
    ]


def test_a_new_key_is_tried_stored_and_nowhere_to_be_read(as_):
    account = an_account(last_error="401")
    with responses.RequestsMock() as calls:
        calls.get(MODELS, json={"data": []})
        answer = press(as_("admin"), account, "rotate_key", new_key="sk-brand-new-0042")
        assert calls.calls[0].request.headers["Authorization"] == "Bearer sk-brand-new-0042"

    account.refresh_from_db()
    assert answer.status_code == 302
    assert (account.api_key, account.last_error) == ("sk-brand-new-0042", "")
    entry = AuditEntry.objects.get(action="account.rotate_key")
    assert entry.after["api_key"] == "***"
    assert "brand-new" not in str(entry.before) + str(entry.after) + entry.reason


def test_a_key_that_the_provider_refuses_is_not_stored(as_):
    account = an_account(api_key="sk-old-and-good")
    with responses.RequestsMock() as calls:
        calls.get(MODELS, status=401, json={"error": {"message": "no such key"}})
        press(as_("admin"), account, "rotate_key", new_key="sk-wrong-wrong")

    account.refresh_from_db()
    assert account.api_key == "sk-old-and-good"
    assert not AuditEntry.objects.filter(action="account.rotate_key").exists()


def test_a_new_key_needs_a_reason_and_the_right_to_keep_accounts(as_):
    account = an_account(api_key="sk-old")
    shown = press(as_("admin"), account, "rotate_key", new_key="sk-new", reason="")

    assert b"This field is required" in shown.content
    account.refresh_from_db()
    assert account.api_key == "sk-old"


def test_an_operator_may_drain_but_not_switch_off_or_rotate(as_):
    account = an_account()
    client = as_("operator")

    answers = [
        press(client, account, m, new_key="x").status_code
        for m in ("switch_off", "rotate_key", "pause")
    ]

    assert answers == [403, 403, 302]
