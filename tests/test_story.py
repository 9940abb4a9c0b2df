"""The story of Batcher, told once from beginning to end.

A client sends requests over HTTP. Batcher packs them into a batch, uploads it, has the provider run it,
fetches the answers and brings each one to where its client wants it. Whatever goes wrong on the way, each
request is paid for once, and its client hears of it once.

Everything here is real: the HTTP API, the provider (our sandbox, told when to misbehave), the receiver,
the broker, the database. Only the clock is turned by hand: ``road`` takes the steps that workers take,
and ``road.later`` lets time pass. Every single scenario is in tests/scenarios.
"""
# ruff: noqa: F811  # fixtures are imported, and then named as parameters

from __future__ import annotations

import json

import pika
import pytest
from django.urls import reverse

from batching.models import Batch
from tests.scenarios.client import path_of
from tests.scenarios.fixtures import (  # noqa: F401
    _provider_process,
    account,
    api,
    client_of,
    provider,
    receiver,
    road,
)
from tests.scenarios.processes import worker_taking
from tests.scenarios.provider import fault, misbehave, uploaded
from tests.wiring.processes import wait_for


def test_questions_are_sent_in_one_batch_and_their_answers_come_back(api, road, receiver, provider):
    """The happy path: one result goes to a webhook, the other waits until its client pulls it."""
    api.taken("by-webhook", "What is a lane?", to=receiver.url(), metadata={"page": "7"})
    api.taken("pulled", "What is a batch?", to={"type": "none"})

    road.run()

    batch = api.only_batch()
    assert path_of(batch) == [
        *("building", "uploading", "uploaded", "submitting", "processing", "completed"),
        *("downloading", "ready_to_deliver", "delivering", "delivered"),
    ]
    assert len(uploaded(provider, batch)) == 2
    (call,) = receiver.calls
    came = call.json()
    assert (came["outcome"], came["metadata"]) == ("succeeded", {"page": "7"})
    assert came["response"]["status_code"] == 200
    pulled = {result["custom_id"]: result for result in api.results()}
    assert set(pulled) == {"by-webhook", "pulled"}
    assert pulled["by-webhook"] == came
    assert api.states() == {"by-webhook": "delivered", "pulled": "processed"}


@pytest.mark.service
def test_an_answer_comes_back_as_a_message(api, road, settings, rabbitmq_url):
    """The happy path by RabbitMQ: persistent, and with an id that stays the same over all tries."""
    settings.RABBITMQ_URL = rabbitmq_url
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as broker:
        channel = broker.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        taken = api.taken("m1", to={"type": "rabbitmq", "rabbitmq_queue": queue})

        road.run()

        _, properties, body = channel.basic_get(queue, auto_ack=True)
        assert channel.basic_get(queue)[0] is None, "it came once"
    assert json.loads(body)["custom_id"] == "m1"
    assert json.loads(body)["outcome"] == "succeeded"
    assert properties.message_id.startswith(taken["id"])
    assert properties.delivery_mode == 2
    assert properties.headers["x-batcher-custom-id"] == "m1"
    assert api.states() == {"m1": "delivered"}


def test_a_request_that_fails_is_told_of_and_harms_no_other(api, road, receiver, provider):
    """A failed line: the provider refuses one question; its client hears why, the others get answers."""
    misbehave(provider, fault("fail_line", body="forbidden", status=400, message="Not this."))
    for custom_id, text in (("good", "Hi"), ("bad", "Something forbidden")):
        api.taken(custom_id, text, to=receiver.url())

    road.run()

    came = receiver.by_id()
    assert (came["good"]["outcome"], came["bad"]["outcome"]) == ("succeeded", "failed")
    assert came["bad"]["response"]["body"]["error"]["message"] == "Not this."
    assert api.states() == {"good": "delivered", "bad": "failed"}
    assert api.only_batch()["state"] == "partially_delivered"
    assert "Not this." in api.request("bad")["why"]


def test_what_an_expired_batch_left_unanswered_goes_on_in_another_one(
    api, road, receiver, provider
):
    """An expired batch: the answer that came is kept and delivered, the others are asked once more."""
    misbehave(provider, fault("expire", after_answers=1, times=1))
    for n in range(3):
        api.taken(f"q-{n}", f"Question {n}", to=receiver.url())

    road.run()

    first, second = api.batches()
    assert path_of(first)[4:] == [
        *("processing", "expired", "downloading", "ready_to_deliver", "delivering", "delivered")
    ]
    assert second["state"] == "delivered"
    assert len(uploaded(provider, second)) == 2
    assert {body["outcome"] for body in receiver.by_id().values()} == {"succeeded"}
    assert sorted(api.request(f"q-{n}")["attempt"] for n in range(3)) == [1, 2, 2]
    assert provider.stats()["lines"]["answered_again"] == 0, "no question was paid for twice"


SILENCE_AFTER_CREATING = fault(
    "hang", route="batches.create", seconds=60, after_effect=True, times=1
)


def kill_a_worker_that_waits_for_its_reply(provider):
    with worker_taking("submit") as worker:
        wait_for(
            lambda: provider.stats()["batches"]["created"] == 1,
            timeout_s=20,
            what="the provider has the batch",
        )
        worker.kill()


@pytest.mark.slow
def test_a_worker_killed_between_create_and_record_buys_nothing_twice(
    api, road, receiver, provider
):
    """A crash at the worst moment: the provider has the batch, and nobody wrote down that it does."""
    misbehave(provider, SILENCE_AFTER_CREATING)
    for n in range(3):
        api.taken(f"q-{n}", f"Question {n}", to=receiver.url())
    road.step("pack", "upload")

    kill_a_worker_that_waits_for_its_reply(provider)
    doubtful = api.only_batch()
    road.step("submit", "adopt", "poll")
    road.later(minutes=3)
    road.run()

    assert (doubtful["state"], doubtful["provider_batch_id"]) == ("submitting", None)
    batch = api.only_batch()
    assert batch["state"] == "delivered"
    (accepted,) = (t for t in batch["transitions"] if t["transition"] == "accepted")
    assert accepted["reason"].startswith(f"found as {batch['provider_batch_id']}")
    assert len(receiver.by_id()) == 3
    stats = provider.stats()
    assert (stats["batches"]["created"], stats["lines"]["answered_again"]) == (1, 0)


def test_an_operator_sees_the_whole_history(api, road, receiver, admin_client):
    """Every step is a logged transition, and stands on the batch's page in the admin."""
    api.taken("seen", to=receiver.url())
    road.run()

    address = reverse("admin:batching_batch_change", args=[Batch.objects.get().pk])
    page = admin_client.get(address)

    shown = page.content.decode()
    for step in api.only_batch()["transitions"]:
        assert step["to_state"].replace("_", " ") in shown.lower().replace("_", " ")
        assert step["reason"].split(" [by ")[0] in shown
