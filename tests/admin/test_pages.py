"""Pages of one row: why, history, attempts, bodies; and forms that take secrets or show them once."""

from __future__ import annotations

import json

import pytest
import responses
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from batching.admin import payloads
from batching.lifecycle import Actor, move
from batching.models import Account, ApiKey, Destination, Flag, RequestBody
from batching.models.projects import digest
from delivery.models import Attempt
from tests.batching.rows import (
    a_batch,
    a_destination,
    a_project,
    a_request,
    an_account,
    an_answer,
)


def page_of(client, row) -> str:
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return client.get(reverse(name, args=[row.pk])).content.decode()


def test_a_batch_says_why_it_is_not_done(as_):
    batch = a_batch(state="waiting_for_capacity", wait_reason="the lane is full")

    assert "It waits: the lane is full." in page_of(as_("viewer"), batch)


def test_history_tells_who_why_and_how_long_after(as_, django_user_model):
    batch = a_batch()
    a_request(batch=batch)
    person = django_user_model.objects.create_user("maria")
    move(batch, "seal", reason="wanted now", by=Actor(name="maria", user_id=person.pk))
    move(batch, "uploaded", reason="file-1", by=Actor(name="worker"))

    page = page_of(as_("viewer"), batch)

    history = page[page.index('id="history"') :]
    for text in ("maria", "wanted now", "worker", "file-1"):
        assert text in history
    assert "[by worker]" not in history
    assert history.index("wanted now") < history.index("file-1")


def test_a_batch_counts_its_requests_by_state_and_links_to_them(as_):
    batch = a_batch()
    for state in ("failed", "failed", "delivered"):
        a_request(
            batch=batch, state=state, error_code="content_filter" if state == "failed" else ""
        )

    page = page_of(as_("viewer"), batch)

    assert f"/admin/batching/request/?batch={batch.pk}&amp;state__exact=failed" in page


def test_a_requests_page_costs_the_same_with_a_long_past(as_):
    request = a_request(batch=a_batch(), destination=a_destination())
    client = as_("root")
    page_of(client, request)
    with CaptureQueriesContext(connection) as short:
        page_of(client, request)
    for number in range(5):
        Attempt.objects.create(
            request=request, destination=a_destination(), number=number, outcome="http_status"
        )
        move(request, "cancel", reason="x")
        move(request, "requeue", reason="y")

    with CaptureQueriesContext(connection) as long:
        page = page_of(client, request)

    assert page.count("http status") == 5
    assert len(long) <= len(short) + 1


def test_what_comes_from_outside_is_text_and_never_markup(as_):
    evil = "<script>alert(1)</script>"
    place = a_destination(name=evil)
    batch = a_batch(last_error=evil, provider_object={"x": evil}, state="failed")
    request = a_request(
        custom_id=evil, batch=batch, destination=place, error_message=evil, state="failed",
        body={"input": evil},
    )  # fmt: skip
    an_answer(request, line=json.dumps({"x": evil}).encode())
    Attempt.objects.create(
        request=request, destination=place, number=1, outcome="gone", detail=evil, answer=evil
    )
    move(request, "requeue", reason=evil)
    client = as_("root")
    urls = [
        reverse("admin:index"),
        reverse("admin:batching_request_payload", args=[request.pk]),
        *(reverse(f"admin:{page}_changelist") for page in ("batching_request", "delivery_attempt")),
        reverse("admin:django_fsm_log_statelog_changelist"),
        reverse("admin:batching_destination_changelist"),
        *(
            reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
            for row in (batch, request, place, Attempt.objects.get())
        ),
        reverse("admin:batching_request_cancel_one", args=[request.pk]),
    ]

    for url in urls:
        content = client.get(url).content.decode()
        assert evil not in content, url
        assert "alert(1)" in content or url == reverse("admin:index"), url


def parts_of(client, request):
    answer = client.get(reverse("admin:batching_request_payload", args=[request.pk]))
    assert "no-store" in answer.headers["Cache-Control"]
    return answer.context["parts"]


def with_body(body: bytes):
    request = a_request()
    RequestBody.objects.filter(request=request).update(body=body)
    return request


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a":[1.10,{"b":{}}],"c":[]}', '{\n  "a": [\n    1.10,\n    {\n      "b": {}\n    }\n  ],\n  "c": []\n}'),
        (rb'{"a":"x, {y}: \"z\" \ud800"}', '{\n  "a": "x, {y}: \\"z\\" \\ud800"\n}'),
        (b'{"n":1e999}', '{\n  "n": 1e999\n}'),
        (b"[]", "[]"),
        (b"not json", "not json"),
        (b"\xff\xfe", "��"),
        (b"[" * 5000, "[" * 5000),
    ],
    ids=["nested", "strings-as-written", "numbers-as-written", "empty", "no-json", "no-utf8", "deep"],
)  # fmt: skip
def test_json_is_indented_and_otherwise_left_as_it_was_written(as_, body, text):
    part = parts_of(as_("operator"), with_body(body))[0]

    assert part.text == text


def test_a_big_body_is_cut_on_the_page_and_whole_in_the_download(as_, monkeypatch):
    monkeypatch.setattr(payloads, "SHOWN_BYTES", 10)
    request = with_body(b'{"a":"0123456789\x00"}')
    client = as_("operator")

    part = parts_of(client, request)[0]

    assert (part.text, part.is_cut) == ('{"a":"0123', True)
    download = client.get(part.raw_url)
    assert download.content == b'{"a":"0123456789\x00"}'
    assert download.headers["Content-Disposition"].startswith("attachment")


def test_every_attempts_answer_is_shown_as_it_came(as_):
    request = a_request(attempt=2)
    an_answer(request, line=b'{"first":true}', attempt=1, status_code=500)
    an_answer(request, line=b'{"second":true}', attempt=2)

    parts = parts_of(as_("operator"), request)

    assert [p.title for p in parts][2:] == [
        "Answer to attempt 1: status 500",
        "Answer to attempt 2: status 200",
    ]
    assert '"first": true' in parts[2].text


def test_each_look_at_a_body_is_logged(as_):
    request = a_request()
    client = as_("operator")

    parts_of(client, request)
    client.get(reverse("admin:batching_request_raw", args=[request.pk, "body"]))

    notes = LogEntry.objects.order_by("pk").values_list("user__username", "change_message")
    assert list(notes) == [
        ("the-operator", "Looked at the body and answers"),
        ("the-operator", "Downloaded body"),
    ]


@pytest.mark.parametrize("part", ["answer-1", "answer-", "line", "answer-99999999999"])
def test_a_part_that_is_not_there_is_404(as_, part):
    url = reverse("admin:batching_request_raw", args=[a_request().pk, part])

    assert as_("operator").get(url).status_code == 404


ACCOUNT = {"name": "main", "kind": "openai", "base_url": "https://api.openai.com/v1"}


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", "whsec_dGhlLW9sZC1zZWNyZXQ="),
        ("whsec_dGhlLW5ldy1zZWNyZXQ=", "whsec_dGhlLW5ldy1zZWNyZXQ="),
        ("none", ""),
    ],
    ids=["kept", "replaced", "dropped"],
)
def test_an_accounts_webhook_secret_is_only_ever_written(as_, typed, stored):
    account = an_account("main", webhook_secret="whsec_dGhlLW9sZC1zZWNyZXQ=")
    client, url = as_("admin"), reverse("admin:batching_account_change", args=[account.pk])

    assert "dGhlLW9sZC1zZWNyZXQ" not in client.get(url).content.decode()
    assert client.post(url, ACCOUNT | {"webhook_secret": typed}).status_code == 302
    assert Account.objects.get().webhook_secret == stored


def test_an_accounts_webhook_secret_that_can_be_none_is_refused(as_):
    account = an_account("main")
    url = reverse("admin:batching_account_change", args=[account.pk])

    answer = as_("admin").post(url, ACCOUNT | {"webhook_secret": "whsec_???"})

    assert "followed by base64" in answer.content.decode()


def test_an_accounts_key_is_kept_when_none_is_typed_and_replaced_when_one_is(as_):
    account = an_account("main", api_key="sk-the-old-key-1")
    client = as_("admin")
    url = reverse("admin:batching_account_change", args=[account.pk])

    assert client.post(url, ACCOUNT | {"api_key": ""}).status_code == 302
    assert Account.objects.get().api_key == "sk-the-old-key-1"

    client.post(url, ACCOUNT | {"api_key": " sk-the-new-key-2 "})
    assert Account.objects.get().api_key == "sk-the-new-key-2"


@responses.activate
@pytest.mark.parametrize(
    ("status", "told", "error"),
    [(200, "1 done.", False), (401, "0 done, 1 skipped: the provider said", True)],
    ids=["works", "refused"],
)
def test_checking_a_connection_tells_and_notes_what_the_provider_said(as_, status, told, error):
    account = an_account("main", base_url="https://api.example.com/v1", api_key="sk-some-key-1")
    responses.get(
        url="https://api.example.com/v1/models", json={"data": [], "object": "list"}, status=status
    )
    client = as_("admin")
    url = reverse("admin:batching_account_check_one", args=[account.pk])

    assert client.get(url).status_code == 200
    assert len(responses.calls) == 0
    page = client.post(url, {"confirmed": "yes"}, follow=True).content.decode()

    assert told in page
    account.refresh_from_db()
    assert bool(account.last_error) == error
    assert "sk-some-key-1" not in account.last_error


def test_a_keys_secret_is_shown_once_and_stored_nowhere(as_):
    project = a_project()
    client = as_("admin")
    form = {"project": project.pk, "name": "reporting", "scopes": ["submit", "read"]}

    answer = client.post(reverse("admin:batching_apikey_add"), form)

    key = ApiKey.objects.get()
    secret = answer.context["secret"]
    assert digest(secret) == key.secret_sha256
    assert key.scopes == ["read", "submit"]
    assert "no-store" in answer.headers["Cache-Control"]
    assert secret in answer.content.decode()
    assert secret not in page_of(client, key)
    assert secret not in str(dict(client.session))


def test_a_revoked_key_opens_nothing_and_is_not_revoked_twice(as_):
    key, _ = ApiKey.issue(a_project(), "k")
    client = as_("admin")
    url = reverse("admin:batching_apikey_revoke_one", args=[key.pk])

    client.post(url, {"confirmed": "yes", "reason": "leaked"})
    again = client.post(url, {"confirmed": "yes", "reason": "leaked"}, follow=True)

    key.refresh_from_db()
    assert not key.is_valid
    assert "already revoked" in again.content.decode()
    assert LogEntry.objects.get(change_message="Revoke: leaked").object_repr == str(key)


WEBHOOK = {"name": "hook", "type": "webhook", "url": "https://r.example/in"}


def test_a_webhooks_secret_is_shown_once(as_):
    client = as_("admin")

    answer = client.post(
        reverse("admin:batching_destination_add"), WEBHOOK | {"project": a_project().pk}
    )

    place = Destination.objects.get()
    assert place.secret.startswith("whsec_")
    assert place.secret in answer.content.decode()
    assert place.secret not in page_of(client, place)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"url": "ftp://x"}, "must start with http"),
        ({"queue": "q"}, "has no queue"),
        ({"type": "rabbitmq", "url": ""}, "or an exchange with a routing key"),
        ({"type": "rabbitmq", "url": "", "queue": "q", "exchange": "e"}, "one of the two"),
        ({"url": "https://taken.example/"}, "leads to the same place"),
    ],
    ids=["no-url", "both", "nowhere", "twice", "taken"],
)
def test_a_place_that_can_not_be_is_refused(as_, fields, problem):
    taken = a_destination(url="https://taken.example/")
    form = WEBHOOK | {"project": taken.project_id} | fields

    answer = as_("admin").post(reverse("admin:batching_destination_add"), form)

    assert problem in answer.content.decode()
    assert Destination.objects.count() == 1


def test_maintenance_is_switched_by_an_operator(as_):
    client = as_("operator")

    client.post(reverse("admin:batching_flag_add"), {"name": "maintenance", "is_on": "on"})

    assert Flag.is_raised(Flag.MAINTENANCE)
    assert "The switch “maintenance” is on" in client.get(reverse("admin:index")).content.decode()


def test_the_first_page_says_how_to_begin_and_then_what_needs_someone(as_):
    client = as_("operator")
    assert "Send the first request" in client.get(reverse("admin:index")).content.decode()

    a_request(state="delivery_failed", dead_at=timezone.now())
    page = client.get(reverse("admin:index")).content.decode()

    assert "Send the first request" not in page
    assert "1 result was given up" in page
    assert "/admin/batching/request/?due=never" in page


def test_the_clock_is_switched_off_and_on(as_):
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    every, _ = IntervalSchedule.objects.get_or_create(every=9, period="seconds")
    line = PeriodicTask.objects.create(name="mine", task="no.such.task", interval=every)
    client = as_("admin")

    for name, enabled in (("switch_off", False), ("switch_on", True)):
        url = reverse(f"admin:django_celery_beat_periodictask_{name}_one", args=[line.pk])
        client.post(url, {"confirmed": "yes", "reason": "trying"})
        line.refresh_from_db()
        assert line.enabled == enabled
    assert "mine" in page_of(client, line)

    ring = reverse("admin:django_celery_beat_periodictask_ring_one", args=[line.pk])
    told = client.post(ring, {"confirmed": "yes"}, follow=True).content.decode()
    assert "no task is named no.such.task" in told


@pytest.mark.django_db(transaction=True)
def test_the_groups_can_be_taken_back_and_made_again():
    from django.contrib.auth.models import Group

    call_command("migrate", "batching", "0002", verbosity=0)
    assert not Group.objects.filter(name="operator").exists()

    call_command("migrate", verbosity=0)
    operator = Group.objects.get(name="operator")
    codes = set(operator.permissions.values_list("codename", flat=True))
    assert {"operate_batch", "view_payload", "view_batch", "view_rejection"} <= codes
    assert "change_account" not in codes
