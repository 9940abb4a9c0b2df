"""The sandbox page: samples, faults, the receiver that is broken and mended, and who may do that."""

from __future__ import annotations

import json

import pytest
import responses
from django.urls import reverse

from batching.lifecycle import RequestState
from batching.models import Account, AuditEntry, Destination, Request, Submission
from delivery.models import DestinationHealth
from tests.admin.conftest import ROLES
from tests.batching.rows import NOW, a_batch, a_destination, a_project, a_request, an_account

pytestmark = pytest.mark.django_db
ROOT = "http://127.0.0.1:9/sandbox"
RECEIVER = "http://127.0.0.1:9/receiver"
SAMPLE = {"deed": "send", "count": "3", "to": "receiver"}


@pytest.fixture
def control(settings):
    """What the sandbox answers; ``control.said`` is what it was told."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ("127.0.0.0/8",)
    an_account()
    with responses.RequestsMock(assert_all_requests_are_fired=False) as calls:
        named = [{"name": "calm", "description": "No faults."}]
        faults = [{"name": "expire", "description": "End as expired.", "strikes": "batches"}]
        conduct = {"description": "", "rules": []}
        arrival = {"at": 1e9, "custom_id": "sample-1", "webhook_id": "w", "answered": 503, "size_bytes": 9,
                   "is_replay": True, "path": "/receiver", "body": "{}"}  # fmt: skip
        told = {"status": 503, "taken": 1, "refused": 2, "delay_s": 0, "arrivals": [arrival]}
        calls.get(f"{ROOT}/scenarios", json={"data": named})
        calls.get(f"{ROOT}/faults", json={"data": faults})
        calls.get(f"{ROOT}/scenario", json=conduct)
        calls.get(f"{ROOT}/receiver", json=told)
        for method in (responses.PUT, responses.DELETE):
            calls.add(method, f"{ROOT}/scenario", json=conduct)
            calls.add(method, f"{ROOT}/receiver", json=told)
        yield calls


def page() -> str:
    return reverse("sandbox")


def sample(**answers) -> dict:
    chosen = {"account": Account.objects.get().pk, "project": a_project().pk}
    return SAMPLE | chosen | answers


def told(calls, method: str) -> list:
    return [json.loads(c.request.body or "{}") for c in calls.calls if c.request.method == method]


@pytest.mark.parametrize("role", ROLES)
def test_those_who_look_see_it_and_those_who_operate_may_send(as_, control, role):
    client = as_(role)
    shown = client.get(page())
    sent = client.post(page(), sample())

    assert shown.status_code == (403 if role == "nobody" else 200)
    operates = role not in ("nobody", "viewer")
    assert (b'value="send"' in shown.content) == operates
    assert sent.status_code == (302 if operates else 403)
    assert Request.objects.count() == (3 if operates else 0)


def test_the_sidebar_leads_to_it_only_while_a_sandbox_is_in_use(as_):
    account = an_account()
    client = as_("viewer")
    link = f'href="{page()}"'
    assert link in client.get(reverse("admin:index")).content.decode()

    Account.objects.filter(pk=account.pk).update(is_enabled=False)

    assert link not in client.get(reverse("admin:index")).content.decode()
    assert b"No sandbox is in use" in client.get(page()).content


def test_a_sample_goes_through_the_sandbox_to_its_receiver(as_, control):
    sent = as_("operator").post(page(), sample())

    place = Destination.objects.get()
    assert (place.name, place.url, place.retry_delays_s) == ("sandbox-receiver", RECEIVER, [0, 2])
    submission = Submission.objects.get()
    assert sent["Location"] == f"{page()}?submission={submission.key}#sandbox_watch"
    rows = Request.objects.filter(submission=submission)
    assert {(r.destination, r.lane.account.name) for r in rows} == {(place, "sandbox")}
    entry = AuditEntry.objects.get(action="sandbox.sample")
    assert (entry.actor, entry.after["requests"]) == ("user the-operator", 3)


def test_the_receiver_keeps_its_destination_when_the_sandbox_moves_to_another_port(as_, control):
    place = a_destination(name="sandbox-receiver", url="http://127.0.0.1:1/receiver")

    as_("operator").post(page(), sample())

    place.refresh_from_db()
    assert (Destination.objects.count(), place.url) == (1, RECEIVER)


@pytest.mark.parametrize(
    ("answers", "config"),
    [
        ({"to": "none"}, None),
        ({"to": "webhook", "url": "http://127.0.0.1:7/x"}, "http://127.0.0.1:7/x"),
    ],
)
def test_a_sample_may_go_to_nobody_or_elsewhere(as_, control, answers, config):
    as_("operator").post(page(), sample(**answers))

    assert {r.destination and r.destination.url for r in Request.objects.all()} == {config}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"count": "501"}, "less than or equal to 500"),
        ({"to": "webhook"}, "Say where"),
        ({"to": "webhook", "url": "ftp://x"}, "Nothing was sent"),
        ({"account": "0"}, "Select a valid choice"),
    ],
)
def test_what_can_not_be_sent_is_told_and_nothing_is_stored(as_, control, answers, words):
    shown = as_("operator").post(page(), sample(**answers), follow=True)

    assert words in shown.content.decode()
    assert not Request.objects.exists()
    assert not Submission.objects.exists()


def test_an_address_that_is_not_open_is_told_with_its_reason(as_, control, settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ()

    shown = as_("operator").post(page(), sample(), follow=True).content.decode()

    assert "Nothing was sent" in shown
    assert not Request.objects.exists()


def watched(**fields) -> Submission:
    submission = Submission.objects.create(project=a_project(), accepted=2)
    for _ in range(2):
        a_request(submission=submission, **fields)
    return submission


def part(client, submission, name="sandbox_watch"):
    headers = {"HX-Request": "true", "HX-Target": name}
    return client.get(page(), {"submission": submission.key}, headers=headers)


@pytest.mark.parametrize(
    ("facts", "come", "is_over"),
    [
        ({}, [2, 0, 0, 0, 0, 0], False),
        ({"batch": "uploaded"}, [2, 2, 2, 0, 0, 0], False),
        ({"batch": "processing", "state": "processing"}, [2, 2, 2, 2, 0, 0], False),
        ({"batch": "delivering", "state": "processed", "settled_at": NOW, "due_at": NOW}, [2, 2, 2, 2, 2, 0], False),
        ({"batch": "delivered", "state": "delivered", "settled_at": NOW, "delivered_at": NOW}, [2, 2, 2, 2, 2, 2], True),
        ({"batch": "delivery_failed", "state": "delivery_failed", "settled_at": NOW, "dead_at": NOW}, [2, 2, 2, 2, 2, 0], True),
        ({"batch": "delivered", "state": "processed", "settled_at": NOW, "destination": None}, [2, 2, 2, 2, 2, 2], True),
    ],
)  # fmt: skip
def test_the_stepper_tells_how_many_have_come_how_far_and_stops_at_the_end(
    as_, control, facts, come, is_over
):
    facts = {"destination": a_destination()} | facts
    if "batch" in facts:
        facts["batch"] = a_batch(state=facts["batch"])

    answer = part(as_("viewer"), watched(**facts))

    assert [step.come for step in answer.context["progress"].steps] == come
    assert answer.status_code == (286 if is_over else 200)
    assert (b"hx-get" in answer.content) == (not is_over)
    assert answer.content.strip().startswith(b'<section id="sandbox_watch"')


def test_bad_ends_and_what_was_given_up_are_counted(as_, control):
    submission = watched(state="failed", settled_at=NOW, dead_at=NOW, destination=a_destination())

    answer = part(as_("viewer"), submission)

    assert answer.context["progress"].ends == {RequestState.FAILED.value: 2, "given_up": 2}
    assert answer.context["progress"].steps[-1].standing == "bad"
    assert "2 given up" in answer.content.decode()


def test_watching_costs_the_same_few_queries_however_many_are_watched(
    as_, control, django_assert_max_num_queries
):
    batch = a_batch(state="processing")
    submission = watched(batch=batch, state="processing")
    client = as_("viewer")
    for _ in range(20):
        a_request(submission=submission, batch=batch, state="processing")

    with django_assert_max_num_queries(12):
        part(client, submission)


def test_the_receiver_is_shown_with_what_came(as_, control):
    shown = as_("viewer").get(page()).content.decode()

    assert "It answers 503 to everything that comes." in shown
    assert "1 taken, 2 refused" in shown
    assert "sample-1" in shown


def test_the_receiver_is_broken_and_mended(as_, control):
    place = a_destination(url=RECEIVER)
    DestinationHealth.objects.create(destination=place, openings=2, open_until=NOW)
    client = as_("operator")

    client.post(page(), {"deed": "break", "status": "400"})
    client.post(page(), {"deed": "mend"})

    assert told(control, "PUT") == [{"status": 400}, {"status": 200}]
    assert DestinationHealth.objects.get().openings == 0
    assert AuditEntry.objects.filter(action__endswith="_receiver").count() == 2


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"what": "scenario:calm"}, {}),
        ({"what": "fault:expire", "times": "2"},
         {"description": "End as expired.", "rules": [{"fault": "expire", "times": 2}]}),
        ({"what": "fault:expire", "times": ""},
         {"description": "End as expired.", "rules": [{"fault": "expire"}]}),
    ],
)  # fmt: skip
def test_the_provider_misbehaves_as_chosen(as_, control, answers, said):
    as_("operator").post(page(), {"deed": "misbehave"} | answers)

    assert told(control, "PUT") == [said]
    assert AuditEntry.objects.get(action="sandbox.misbehave").after == {"what": answers["what"]}


def test_a_fault_that_nobody_knows_is_not_sent(as_, control):
    as_("operator").post(page(), {"deed": "misbehave", "what": "fault:arson"})

    assert told(control, "PUT") == []


def test_a_sandbox_that_does_not_answer_is_told_and_hides_nothing_of_ours(as_):
    an_account()
    with responses.RequestsMock() as calls:
        calls.get(f"{ROOT}/receiver", status=500)
        calls.get(f"{ROOT}/scenario", status=502)
        shown = as_("operator").get(page(), {"submission": watched().key}).content.decode()

    assert "The sandbox does not answer" in shown
    assert 'id="sandbox_watch"' in shown
