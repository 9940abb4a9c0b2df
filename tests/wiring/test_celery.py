"""How tasks are sent and taken, with each kind of broker."""

from __future__ import annotations

import uuid

import pytest
from celery import Celery
from django.conf import settings
from kombu import Connection
from kombu.exceptions import OperationalError

from batcher import processes
from batcher.celery import app, broker_settings, common_settings, queues
from batcher.schedule import WorkQueue
from batcher.worker import Consumer


@pytest.mark.service
def test_rabbitmq_takes_our_queues_as_quorum_queues_and_confirms(rabbitmq_url: str):
    options = broker_settings(rabbitmq_url)["broker_transport_options"]
    (queue, *_rest) = queues(quorum=True)
    queue.name = queue.routing_key = f"batcher.test.{uuid.uuid4().hex}"
    with Connection(rabbitmq_url, transport_options=options) as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        try:
            connection.Producer().publish(
                {"bell": 1}, exchange=queue.exchange, routing_key=queue.routing_key
            )

            assert bound.get(no_ack=True).payload == {"bell": 1}
        finally:
            bound.delete()


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_bells_are_rung_again_once_a_broker_that_went_away_is_back(own_broker, end):
    bells = Celery("bells", set_as_current=False)
    bells.conf.update(common_settings() | broker_settings(own_broker.url))
    clock = bells.amqp.Producer(bells.connection_for_write())  # it keeps one, as the clock does
    for producer in (clock, None):
        bells.send_task("bell", producer=producer)

    getattr(own_broker, end)()
    for producer in (clock, None):
        with pytest.raises(OperationalError):
            bells.send_task("bell", producer=producer)
    own_broker.start()
    for producer in (clock, None):
        bells.send_task("bell", producer=producer)

    clock.connection.close()
    bells.close()


def test_a_worker_takes_from_every_queue():
    (taken,) = [part for part in processes.worker(settings) if part.startswith("--queues=")]

    assert set(taken.removeprefix("--queues=").split(",")) == {queue.value for queue in WorkQueue}
    assert {queue.name for queue in queues(quorum=False)} == {queue.value for queue in WorkQueue}


def test_two_workers_on_one_host_have_two_names():
    names = {
        part
        for _ in range(2)
        for part in processes.worker(settings)
        if part.startswith("--hostname=")
    }

    assert len(names) == 2


def test_a_message_is_acknowledged_after_the_work_and_given_back_when_the_worker_dies():
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.accept_content == ["json"]


def test_redis_keeps_a_message_longer_than_any_task_may_take():
    options = broker_settings("redis://localhost/0")["broker_transport_options"]

    assert options["visibility_timeout"] > app.conf.task_time_limit


def test_a_worker_makes_no_queues_for_delayed_messages():
    steps = [str(step) for step in Consumer.Blueprint.default_steps]

    assert not [step for step in steps if "delayed" in step.lower()]
    assert [step for step in steps if step.endswith(":Tasks")]
