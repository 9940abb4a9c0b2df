"""Scenarios 5, 14, 32, 33 with a broker: requests from a queue, by the real consumer, and a broker that comes and goes."""

from __future__ import annotations

import json

import pytest
import requests

from tests.delivery.intake_queue import Broker
from tests.scenarios.client import new_request
from tests.scenarios.processes import intake, web_server
from tests.wiring.processes import wait_for

pytestmark = [pytest.mark.service, pytest.mark.slow]

OURS = {"x-batcher-project": "ours"}


@pytest.fixture
def queue(own_broker):
    """Return an input queue, and one for what is refused."""
    made = Broker(own_broker.url)
    made.declare()
    yield made
    if own_broker.is_running and made.connection.is_open:
        made.close()


def until(question, what):
    wait_for(question, timeout_s=45, what=what)


def consumer(url: str) -> str:
    """Return what the web server says of the consumer."""
    return requests.get(f"{url}/ready", timeout=10).json()["parts"]["intake"]["detail"]


REFUSED = [
    b"{bad",
    b"[]",
    b"7",
    b'{"custom_id":"x"}',
    json.dumps(new_request("hook", to="not-a-valid-url")).encode(),
    json.dumps(new_request("d1", "Something else")).encode(),
    json.dumps(new_request("big", "one " * 5_000)).encode(),
]


def test_each_message_finds_its_end_and_a_good_one_its_receiver(
    api, account, road, receiver, queue, tmp_path
):
    """Scenarios 32, 5 and 14. House: a destination that can't be and a taken id are refused, not retried."""
    account.token_limit = 1_000
    account.save()
    good = new_request("d1", to=receiver.url())
    with intake(tmp_path / "log", queue.url, queue.queue):
        for body in (good, good, *REFUSED, new_request("d2", to=receiver.url())):
            queue.send(body, headers=OURS)
        until(lambda: queue.waiting(queue.refused) == len(REFUSED), "the refused ones")
        until(lambda: len(api.requests()) == 2, "the good ones")
    road.run()

    assert sorted(queue.refused_bodies()) == sorted(REFUSED)
    assert queue.waiting() == 0
    assert api.states() == {"d1": "delivered", "d2": "delivered"}
    assert receiver.custom_ids() == ["d1", "d2"]


def test_a_broker_that_is_down_at_boot_is_a_state_and_no_end(api, own_broker, queue, tmp_path):
    """Scenario 33. House: the API takes requests all the while; the queue that is deleted is a state, too."""
    queue.connection.close()
    own_broker.stop()
    named = {"RABBITMQ_URL": queue.url, "RABBITMQ_INPUT_QUEUE": queue.queue}
    with (
        web_server(tmp_path / "web", **named) as url,
        intake(tmp_path / "intake", queue.url, queue.queue) as process,
    ):
        until(lambda: consumer(url).startswith("disconnected"), "the state")
        assert api.taken("by-http")
        own_broker.start()
        until(lambda: consumer(url).startswith("consuming"), "the consumer to come back")
        again = Broker(queue.url, queue.queue)
        again.send(new_request("q1"), headers=OURS)
        until(lambda: "q1" in api.states(), "the first message")

        again.channel.queue_delete(queue.queue)
        until(lambda: consumer(url).startswith("queue_missing"), "the loss of the queue")
        again.declare()
        again.send(new_request("q2"), headers=OURS)
        until(lambda: "q2" in api.states(), "the second message")
        assert process.poll() is None
        again.close()
    assert set(api.states()) == {"by-http", "q1", "q2"}
