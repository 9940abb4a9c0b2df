"""Taking requests from a real RabbitMQ: every verdict, every loss, and nothing lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from batching.models import Flag, Request
from delivery import intake_consumer, intake_desk
from delivery.models import IntakeStatus, Rejection
from tests.api.conftest import new_request
from tests.batching.rows import a_project, an_account
from tests.delivery.broker_proxy import Proxy
from tests.delivery.intake_queue import Broker, consuming, state, stored, until
from tests.wiring.processes import ROOT, environment, running

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def broker(rabbitmq_url, db):
    an_account()
    a_project("default")
    own = Broker(rabbitmq_url)
    own.declare()
    yield own
    own.close()


def database_url():
    """Return the URL of the database that this test runs on."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


POISON = (b"[]", b"7", b"{bad", b"\xff\xfe", b'{"custom_id":"x"}', b"[" * 100_000)


def test_each_kind_of_message_finds_its_end_and_none_ends_the_consumer(broker):
    big = b'{"a":"' + b"x" * 17_000_000 + b'"}'
    hook = {"type": "webhook", "webhook_url": "not-a-valid-url"}
    bad = [*POISON, big, json.dumps(new_request("h", delivery_config=hook)).encode()]
    for body in bad:
        broker.send(body)
    for body in (new_request("a"), new_request("a"), [new_request("b"), new_request("c")]):
        broker.send(body)

    with consuming(broker):
        until(lambda: stored() == 3 and Rejection.objects.count() == len(bad))
        until(lambda: broker.waiting(broker.refused) == len(bad))
        broker.send(new_request("d"))
        until(lambda: stored() == 4)

    assert sorted(broker.refused_bodies()) == sorted(bad)
    assert broker.waiting() == 0
    codes = set(Rejection.objects.values_list("code", flat=True))
    assert codes == {
        "validation_error", "malformed_json", "invalid_encoding", "nested_too_deep",
        "payload_too_large",
    }  # fmt: skip


def test_many_messages_are_stored_and_acknowledged_together(broker, monkeypatch):
    from pika.adapters.blocking_connection import BlockingChannel

    acks = []
    acknowledge = BlockingChannel.basic_ack

    def noting(self, delivery_tag=0, multiple=False):
        acks.append((delivery_tag, multiple))
        return acknowledge(self, delivery_tag, multiple)

    monkeypatch.setattr(BlockingChannel, "basic_ack", noting)
    for number in range(300):
        broker.send(new_request(f"r-{number}"))

    with consuming(broker):
        until(lambda: stored() == 300)

    assert broker.waiting() == 0
    assert len(acks) < 30
    assert acks[-1] == (300, True)


def test_a_refused_message_among_good_ones_is_refused_alone(broker):
    for number in range(50):
        broker.send(b"{bad" if number % 10 == 9 else new_request(f"r-{number}"))

    with consuming(broker, prefetch=20):
        until(lambda: stored() == 45 and Rejection.objects.count() == 5)

    assert (broker.waiting(), len(broker.refused_bodies())) == (0, 5)


def test_a_consumer_killed_between_commit_and_acknowledgement_loses_and_doubles_nothing(
    broker, tmp_path
):
    for number in range(120):
        broker.send(b"{bad" if number == 7 else new_request(f"r-{number}"))
    script = str(ROOT / "tests" / "delivery" / "dying_consumer.py")
    killed = subprocess.run(
        [sys.executable, script, broker.url, broker.queue],
        env=environment(
            tmp_path,
            DATABASE_URL=database_url(),
            BATCHER_ENCRYPTION_KEYS=",".join(settings.BATCHER_ENCRYPTION_KEYS),
        ),
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9, killed.stderr
    until(lambda: broker.waiting() == 120, "the messages to come back")
    assert 0 < stored() <= 119

    with consuming(broker):
        until(lambda: stored() == 119)
        until(lambda: broker.waiting(broker.refused) == 1)

    assert broker.waiting() == 0
    assert Rejection.objects.count() == 1


def test_the_command_consumes_and_ends_in_peace(broker, tmp_path):
    env = environment(
        tmp_path,
        DATABASE_URL=database_url(),
        BATCHER_ENCRYPTION_KEYS=",".join(settings.BATCHER_ENCRYPTION_KEYS),
        RABBITMQ_URL=broker.url,
        RABBITMQ_INPUT_QUEUE=broker.queue,
    )
    log = tmp_path / "log"
    with running(str(ROOT / "manage.py"), "run", "intake", env=env, log=log) as process:
        broker.send(new_request("a"))
        until(lambda: stored() == 1)
    assert (process.returncode, state()) == (0, "stopped"), log.read_text()
    assert broker.waiting() == 0


def test_a_database_that_is_away_is_waited_for_and_nothing_is_handed_back(broker, monkeypatch):
    tries, really = [], intake_desk.store

    def store(queue, messages, **how):
        tries.append([each.message.is_redelivered for each in messages])
        if len(tries) < 3:
            raise OperationalError("the database is away")
        return really(queue, messages, **how)

    monkeypatch.setattr(intake_desk, "store", store)
    broker.send(new_request("a"))

    with consuming(broker):
        until(lambda: stored() == 1)

    assert tries == [[False]] * 3
    assert broker.waiting() == 0


def test_a_cut_connection_is_opened_again_and_everything_arrives_once(broker, monkeypatch):
    monkeypatch.setattr(intake_consumer, "growing", lambda *_: iter([0.05] * 1000))
    proxy = Proxy(broker.url)
    try:
        with consuming(broker, url=proxy.url, prefetch=10):
            for number in range(200):
                broker.send(new_request(f"r-{number}"))
                if number % 50 == 25:
                    until(lambda least=number - 20: stored() >= least)
                    proxy.cut()
            until(lambda: stored() == 200)
    finally:
        proxy.close()

    assert proxy.opened > 2
    assert broker.waiting() == 0


def test_a_queue_that_is_missing_is_seen_and_found_when_it_is_made(broker):
    broker.channel.queue_delete(broker.queue)

    with consuming(broker):
        until(lambda: state() == "queue_missing")
        assert broker.queue in IntakeStatus.objects.get().detail
        broker.declare()
        broker.send(new_request("a"))
        until(lambda: stored() == 1)
        until(lambda: state() == "consuming")

        broker.channel.queue_delete(broker.queue)
        until(lambda: state() == "queue_missing")
        broker.declare()
        broker.send(new_request("b"))
        until(lambda: stored() == 2)
    assert state() == "stopped"


def test_a_missing_queue_is_made_when_asked_to(broker):
    broker.channel.queue_delete(broker.queue)

    with consuming(broker, is_declared_by_us=True):
        until(lambda: state() == "consuming")
        broker.send(b"{bad")
        until(lambda: broker.waiting(f"{broker.queue}.rejected") == 1)


def test_a_broker_that_is_away_is_a_state_and_no_end(broker):
    with consuming(broker, url="amqp://guest:hush@127.0.0.1:9/"):
        until(lambda: state() == "disconnected")
        until(lambda: "no connection" in IntakeStatus.objects.get().detail)
    assert "hush" not in IntakeStatus.objects.get().detail


def test_a_wrong_setting_of_ours_empties_no_queue_into_the_dead_letters(broker, monkeypatch):
    from batching import intake

    works, tries, really = threading.Event(), [], intake.accept

    def accept(*args, **how):
        tries.append(1)
        if not works.is_set():
            raise ValueError("the key does not fit")
        return really(*args, **how)

    monkeypatch.setattr(intake, "accept", accept)
    broker.send(new_request("a"))
    broker.send(b"{bad")

    with consuming(broker):
        until(lambda: len(tries) >= 4)
        assert Rejection.objects.count() == 0
        works.set()
        until(lambda: stored() == 1 and Rejection.objects.count() == 1)
    assert broker.refused_bodies() == [b"{bad"]


def test_pauses_grow_from_one_second_to_thirty():
    pauses = intake_desk.growing(1.0, 30.0)

    assert [next(pauses) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_maintenance_pauses_and_its_end_goes_on(broker):
    Flag.objects.create(name=Flag.MAINTENANCE, is_on=True)
    with consuming(broker):
        until(lambda: state() == "paused")
        broker.send(new_request("a"))
        broker.channel.basic_qos()  # a round trip: the message is in its queue
        assert (broker.waiting(), stored()) == (1, 0)

        Flag.objects.update(is_on=False)
        until(lambda: stored() == 1 and state() == "consuming")

        Flag.objects.update(is_on=True)
        until(lambda: state() == "paused")
        broker.send(new_request("b"))
        assert broker.waiting() == 1
    assert stored() == 1


def test_whoever_asks_for_a_reply_gets_one(broker):
    answers = broker.channel.queue_declare("", exclusive=True).method.queue
    sent = [new_request("a"), new_request("b", account="nobody")]
    broker.send(sent, reply_to=answers, correlation_id="c-1")
    broker.send(b"{bad", reply_to=answers, correlation_id="c-2")
    broker.send(new_request("c"), reply_to="nobody.listens")

    with consuming(broker):
        until(lambda: broker.waiting(answers) == 2 and stored() == 2)

    replies = {}
    for _ in range(2):
        _, properties, body = broker.channel.basic_get(answers, auto_ack=True)
        replies[properties.correlation_id] = json.loads(body)
    assert replies["c-1"]["accepted"] == [
        {"id": Request.objects.get(custom_id="a").key, "custom_id": "a", "state": "pending"}
    ]
    assert [e["pointer"] for e in replies["c-1"]["errors"]] == ["/1/account"]
    assert [e["code"] for e in replies["c-2"]["errors"]] == ["malformed_json"]


def test_no_more_bytes_are_held_than_allowed(broker, monkeypatch):
    monkeypatch.setattr(intake_desk, "MOST_BYTES_HELD", 1_000_000)
    held, gate, really = [], threading.Event(), intake_desk.store
    put = intake_desk.Desk.put

    def noting(self, delivered):
        put(self, delivered)
        held.append(self._bytes_held)

    def slow_store(*args, **how):
        gate.wait(5)
        return really(*args, **how)

    monkeypatch.setattr(intake_desk.Desk, "put", noting)
    monkeypatch.setattr(intake_desk, "store", slow_store)
    text = "x" * 300_000
    for number in range(20):
        broker.send(new_request(f"r-{number}", body={"model": "gpt-4o-mini", "input": text}))

    with consuming(broker):
        until(lambda: len(held) >= 4)
        gate.wait(0.5)
        assert max(held) < 2_000_000
        gate.set()
        until(lambda: stored() == 20)
