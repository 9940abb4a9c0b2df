"""A request's result sent elsewhere, whatever became of it so far."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from batching.lifecycle import Actor
from batching.models import AuditEntry, Destination, Project, Request
from batching.steering import Refused
from batching.wire import NOBODY, Delivery
from delivery import dispatch, due
from delivery.models import Attempt
from delivery.outcome import Code, Outcome
from delivery.redirecting import redirect_request
from tests.api.conftest import api, first_error, nothing_remembered, project  # noqa: F401
from tests.batching.rows import a_batch, a_destination, a_request
from tests.delivery.receivers import answering
from tests.delivery.results import a_bad_end, a_result, listening

pytestmark = pytest.mark.django_db
ELSEWHERE = Delivery(type="webhook", url="https://example.com/elsewhere")


def redirect(request, to=ELSEWHERE):
    return redirect_request(
        request, to=to, by=Actor(name="test"), reason="moved", now=timezone.now()
    )


def test_what_waits_for_a_try_is_due_at_the_new_place_with_all_its_tries_ahead():
    later = timezone.now() + timedelta(hours=5)
    result = a_result(due_at=later, tries=4, settled_at=later)

    redirect(result)

    assert result.destination.url == ELSEWHERE.url
    assert (result.due_at < later, result.tries, result.state) == (True, 0, "processed")


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "delivered", "due_at": None, "delivered_at": timezone.now()},
        {"state": "delivery_failed", "due_at": None, "dead_at": timezone.now()},
        {"state": "pending", "due_at": None},
        {"state": "processing", "due_at": None},
    ],
    ids=lambda f: f["state"],
)
def test_what_is_over_or_not_yet_answered_goes_nowhere_by_itself(fields):
    result = a_result(**fields)

    redirect(result)

    assert (result.destination.url, result.due_at) == (ELSEWHERE.url, None)


def test_a_result_that_had_no_place_is_due_at_its_first_one():
    now = timezone.now()
    request = a_request(state="processed", settled_at=now, batch=a_batch(state="delivered"))

    redirect(request)

    request.batch.refresh_from_db()
    assert request.due_at is not None
    assert request.batch.next_attempt_at is not None


def test_a_result_that_is_pulled_from_now_on_is_no_longer_due():
    result = a_result(settled_at=timezone.now())

    redirect(result, NOBODY)

    assert (result.destination, result.due_at) == (None, None)


def test_not_while_it_is_being_sent():
    result = a_result(state="delivering")

    with pytest.raises(Refused, match="being sent"):
        redirect(result)


def test_the_end_of_a_try_at_the_old_place_no_longer_counts():
    told = a_bad_end()
    (claim,) = due.claim({told.destination_id: 1}, now=told.due_at)
    (parcel,) = due.load([claim])
    redirect(told)

    sent = due.Sent(parcel=parcel, outcome=Outcome(code=Code.DELIVERED))
    due.record([sent], now=timezone.now())

    told.refresh_from_db()
    assert told.delivered_at is None
    assert told.due_at is not None
    assert Attempt.objects.count() == 1


def test_another_projects_destination_is_not_there():
    a_destination(project=Project.objects.create(name="theirs"), name="crm")

    with pytest.raises(Refused, match="no destination 'crm'"):
        redirect(a_result(), Delivery(type="destination", name="crm"))


@pytest.mark.django_db(transaction=True)
def test_a_client_redirects_and_redelivers_what_was_given_up(api, project, settings):  # noqa: F811
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    gone = {"state": "delivery_failed", "due_at": None, "dead_at": timezone.now()}
    result = a_result(a_destination(project=project), project=project, **gone)
    path = f"/api/requests/{result.custom_id}"
    with listening(answering("200 OK")) as receiver:
        config = {"type": "webhook", "webhook_url": receiver.url("/new")}
        answer = api.send("PATCH", path, {"delivery_config": config})
        api.post(f"{path}/redeliver")
        dispatch.send_due()

    assert answer.json()["message"] == "Destination changed"
    (request,) = receiver.requests
    assert json.loads(request.body)["custom_id"] == result.custom_id
    assert api.get(path).json()["delivery_config"] == config
    entry = AuditEntry.objects.get(action="request.redirect")
    assert entry.before["destination"] != entry.after["destination"]


def test_what_is_wrong_is_named(api, project):  # noqa: F811
    row = a_result(a_destination(project=project), project=project)
    path = f"/api/requests/{row.custom_id}"

    for body, pointer in (
        ({}, "/delivery_config"),
        ({"delivery_config": {"type": "x"}}, "/delivery_config/type"),
        (
            {"delivery_config": {"type": "webhook", "webhook_url": "ftp://x"}},
            "/delivery_config/webhook_url",
        ),
        ({"delivery_config": {"type": "none"}, "state": "x"}, "/state"),
    ):
        answer = api.send("PATCH", path, body)
        assert (answer.status_code, first_error(answer)["source"]["pointer"]) == (422, pointer)
    unknown = api.send("PATCH", path, {"delivery_config": {"type": "destination", "name": "x"}})
    assert first_error(unknown)["code"] == "unknown_destination"
    assert Destination.objects.count() == 1
    assert Request.objects.get().fence == 0
