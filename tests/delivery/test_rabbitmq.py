"""Publishing to a real RabbitMQ, and to a scripted one for what a real broker does on bad days."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest
from pika import spec

from delivery.outcome import Code, Message
from delivery.rabbitmq import Addressed, publish
from tests.delivery.scripted_broker import ScriptedBroker, ack_all


def to_queue(queue, number=0, body=b'{"answer": 42}', exchange="", **more):
    message = Message(id=f"msg_{number}", body=body, **more)
    return Addressed(message=message, exchange=exchange, routing_key=queue)


def codes(outcomes):
    return [outcome.code for outcome in outcomes]


@pytest.fixture
def broker(rabbitmq_url):
    """A plain connection to look at what arrived."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(broker):
    yield from _declared(broker)


@pytest.fixture
def full_queue(broker):
    limits = {"x-max-length": 2, "x-overflow": "reject-publish"}
    yield from _declared(broker, arguments=limits)


def _declared(broker, **options):
    name = f"test.{uuid.uuid4().hex}"
    broker.queue_declare(name, **options)
    yield name
    broker.queue_delete(name)


@pytest.mark.service
class TestRealBroker:
    def test_a_message_arrives_as_it_was_sent(self, rabbitmq_url, broker, queue):
        headers = (("x-batcher-request-id", "req_1"), ("x-batcher-custom-id", "Zürich \ud800"))
        sent = to_queue(queue, 7, body=b'{"a":"\\u0000"}', headers=headers)

        [outcome] = publish(rabbitmq_url, [sent])

        assert outcome.is_delivered
        assert outcome.address
        method, properties, body = broker.basic_get(queue, auto_ack=True)
        assert (method.exchange, body) == ("", b'{"a":"\\u0000"}')
        assert properties.message_id == "msg_7"
        assert properties.delivery_mode == 2
        assert properties.content_type == "application/json"
        assert properties.headers == {
            "x-batcher-request-id": "req_1",
            "x-batcher-custom-id": "Zürich ?",
        }

    def test_one_call_tells_every_ending_apart_and_in_order(self, rabbitmq_url, broker, queue):
        absent = f"test.{uuid.uuid4().hex}"
        broker.queue_bind(queue, "amq.direct", routing_key=queue)
        kinds = [
            to_queue(queue, 1),
            to_queue(absent, 2),
            to_queue(queue, 3, exchange=absent),
            to_queue(queue, 4, exchange="amq.direct"),
            to_queue(absent, 5, exchange="amq.direct"),
            to_queue("", 6),
            to_queue(queue, 7, exchange=f"{absent}.two"),
        ]

        outcomes = publish(rabbitmq_url, kinds * 10, window=8)

        assert codes(outcomes) == 10 * [
            Code.DELIVERED,
            Code.QUEUE_NOT_FOUND,
            Code.EXCHANGE_NOT_FOUND,
            Code.DELIVERED,
            Code.UNROUTABLE,
            Code.INVALID_DESTINATION,
            Code.EXCHANGE_NOT_FOUND,
        ]
        assert absent in outcomes[1].detail
        # Those that shared a channel with a missing exchange were published again: none is lost.
        arrived = {properties.message_id for properties in _drain(broker, queue)}
        assert arrived == {"msg_1", "msg_4"}

    def test_an_exchange_name_longer_than_the_brokers_text_is_recognised(self, rabbitmq_url, queue):
        outcomes = publish(
            rabbitmq_url, [to_queue(queue, 1), to_queue(queue, 2, exchange="e" * 255)]
        )

        assert codes(outcomes) == [Code.DELIVERED, Code.EXCHANGE_NOT_FOUND]

    def test_quotes_in_the_name_of_a_missing_exchange_blame_no_other(self, rabbitmq_url, queue):
        tricky = to_queue(queue, 1, exchange="amq.direct' in vhost '/'")
        fine = to_queue(queue, 2, exchange="amq.direct")

        outcomes = publish(rabbitmq_url, [tricky, fine])

        assert codes(outcomes) == [Code.EXCHANGE_NOT_FOUND, Code.UNROUTABLE]

    def test_a_full_queue_refuses(self, rabbitmq_url, full_queue):
        outcomes = publish(rabbitmq_url, [to_queue(full_queue, n) for n in range(4)])

        assert codes(outcomes) == [Code.DELIVERED, Code.DELIVERED, Code.NACKED, Code.NACKED]

    def test_five_thousand_are_pipelined(self, rabbitmq_url, broker, queue):
        started = time.monotonic()

        outcomes = publish(rabbitmq_url, [to_queue(queue, n) for n in range(5_000)])

        assert all(outcome.is_delivered for outcome in outcomes)
        assert broker.queue_declare(queue, passive=True).method.message_count == 5_000
        # One round trip per message takes about eight seconds.
        assert time.monotonic() - started < 5

    def test_threads_publish_side_by_side(self, rabbitmq_url, broker, queue):
        chunks = [[to_queue(queue, 100 * n + m) for m in range(100)] for n in range(4)]

        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda chunk: publish(rabbitmq_url, chunk), chunks))

        assert all(outcome.is_delivered for outcomes in results for outcome in outcomes)
        assert broker.queue_declare(queue, passive=True).method.message_count == 400

    def test_a_wrong_password_and_a_missing_vhost_are_refused(self, rabbitmq_url, caplog):
        caplog.set_level(logging.INFO)
        good = pika.URLParameters(rabbitmq_url)
        place = f"{good.host}:{good.port}"

        wrong = publish(f"amqp://nobody-{uuid.uuid4().hex}:secret@{place}/", [to_queue("q")])
        user, password = good.credentials.username, good.credentials.password
        no_vhost = publish(f"amqp://{user}:{password}@{place}/{uuid.uuid4().hex}", [to_queue("q")])

        assert codes(wrong + no_vhost) == [Code.ACCESS_REFUSED, Code.ACCESS_REFUSED]
        assert "secret" not in wrong[0].detail + caplog.text


def _drain(broker, queue):
    while True:
        method, properties, _ = broker.basic_get(queue, auto_ack=True)
        if method is None:
            return
        yield properties


class TestWithoutBroker:
    def test_nothing_to_send_needs_no_broker(self):
        assert publish("", []) == []

    @pytest.mark.parametrize("url", ["", "http://broker/", "broker:5672", "amqp://h/?heartbeat=x"])
    def test_no_usable_url_is_told(self, url):
        assert codes(publish(url, [to_queue("q")])) == [Code.RABBITMQ_NOT_CONFIGURED]

    def test_a_broker_that_is_down_is_a_connection_error(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

        outcomes = publish(f"amqp://u:secret@127.0.0.1:{port}/", [to_queue("q", n) for n in (1, 2)])

        assert codes(outcomes) == [Code.CONNECTION_ERROR] * 2
        assert outcomes[0].detail == "no connection to the broker: Connection refused"

    def test_an_unknown_host_is_a_dns_error(self):
        assert codes(publish("amqp://broker.invalid/", [to_queue("q")])) == [Code.DNS_ERROR]

    @pytest.mark.parametrize(
        "addressed",
        [
            to_queue("q" * 256),
            to_queue("q", exchange="é" * 128),
            to_queue("\ud800"),
            to_queue("q", headers=(("n" * 256, "v"),)),
            to_queue(""),
        ],
        ids=["queue too long", "exchange too long", "lone surrogate", "header too long", "no name"],
    )
    def test_a_name_that_amqp_cannot_write_is_refused_before_connecting(self, addressed):
        assert codes(publish("amqp://broker.invalid/", [addressed])) == [Code.INVALID_DESTINATION]


def ack_one_then_hang_up(*, after):
    """Hang up once so many have arrived: all of them read, or the reset would take the ack along."""

    def act(talk):
        talk.handshake()
        for tag, _ in talk.messages():
            if tag == 1:
                talk.ack(tag)
            if tag == after:
                return

    return act


class TestScriptedBroker:
    def test_a_lost_connection_is_reopened_and_only_the_unconfirmed_sent_again(self):
        with ScriptedBroker(ack_one_then_hang_up(after=3), ack_all) as broker:
            outcomes = publish(broker.url, [to_queue("q", n) for n in range(3)], timeout_s=5)

        assert codes(outcomes) == [Code.DELIVERED] * 3
        assert broker.received == [["msg_0", "msg_1", "msg_2"], ["msg_1", "msg_2"]]

    def test_a_connection_lost_twice_is_an_error_for_what_was_not_confirmed(self):
        script = [ack_one_then_hang_up(after=3), ack_one_then_hang_up(after=2)]
        with ScriptedBroker(*script) as broker:
            outcomes = publish(broker.url, [to_queue("q", n) for n in range(3)], timeout_s=5)

        assert codes(outcomes) == [Code.DELIVERED, Code.DELIVERED, Code.CONNECTION_ERROR]

    def test_what_came_back_before_a_lost_connection_does_not_count_after_it(self):
        def give_back_and_hang_up(talk):
            talk.handshake()
            for _ in talk.messages():
                talk.give_back("msg_0", "q", b"{}")
                return

        with ScriptedBroker(give_back_and_hang_up, ack_all) as broker:
            outcomes = publish(broker.url, [to_queue("q", 0, body=b"{}")], timeout_s=5)

        assert codes(outcomes) == [Code.DELIVERED]

    def test_what_came_back_and_was_confirmed_was_not_delivered(self):
        def give_back(talk):
            talk.handshake()
            for tag, _ in talk.messages():
                talk.give_back("msg_0", "q", b"{}")
                talk.ack(tag)

        with ScriptedBroker(give_back) as broker:
            outcomes = publish(broker.url, [to_queue("q", 0, body=b"{}")], timeout_s=5)

        assert codes(outcomes) == [Code.QUEUE_NOT_FOUND]

    def test_one_confirm_may_settle_many(self):
        def confirm_in_threes(talk):
            talk.handshake()
            for tag, _ in talk.messages():
                if tag % 3 == 0:
                    talk.ack(tag, multiple=True)

        with ScriptedBroker(confirm_in_threes) as broker:
            outcomes = publish(broker.url, [to_queue("q", n) for n in range(9)], timeout_s=5)

        assert codes(outcomes) == [Code.DELIVERED] * 9

    def test_a_blocked_broker_is_told_from_a_slow_one(self):
        def block(talk):
            talk.handshake()
            for tag, _ in talk.messages():
                if tag == 1:
                    talk.send(spec.Connection.Blocked("low on memory"), 0)

        with ScriptedBroker(block) as broker:
            outcomes = publish(broker.url, [to_queue("q", n) for n in range(3)], timeout_s=0.3)

        assert codes(outcomes) == [Code.BROKER_BLOCKED] * 3

    def test_a_broker_that_is_unblocked_in_time_delivers(self):
        def block_and_unblock(talk):
            talk.handshake()
            for tag, _ in talk.messages():
                if tag == 1:
                    talk.send(spec.Connection.Blocked("low on memory"), 0)
                    talk.send(spec.Connection.Unblocked(), 0)
                talk.ack(tag)

        with ScriptedBroker(block_and_unblock) as broker:
            outcomes = publish(
                broker.url, [to_queue("q", n) for n in range(3)], window=1, timeout_s=5
            )

        assert codes(outcomes) == [Code.DELIVERED] * 3

    def test_without_confirms_the_deadline_ends_it_even_if_goodbye_is_not_answered(self):
        def say_nothing(talk):
            talk.handshake()
            list(talk.messages(says_goodbye=False))

        started = time.monotonic()
        with ScriptedBroker(say_nothing) as broker:
            outcomes = publish(broker.url, [to_queue("q", n) for n in range(2)], timeout_s=0.3)

        assert codes(outcomes) == [Code.TIMEOUT] * 2
        assert time.monotonic() - started < 3

    def test_a_broker_that_never_greets_is_a_timeout(self):
        with ScriptedBroker(lambda talk: list(talk.frames())) as broker:
            outcomes = publish(broker.url, [to_queue("q")], timeout_s=0.3)

        assert codes(outcomes) == [Code.TIMEOUT]

    @pytest.mark.parametrize(
        ("reply_code", "reply_text", "expected"),
        [
            (
                406,
                "PRECONDITION_FAILED - message size 3 is larger than configured max size 2",
                Code.NACKED,
            ),
            (
                403,
                "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused",
                Code.ACCESS_REFUSED,
            ),
            (
                403,
                "ACCESS_REFUSED - access to topic 'bad' in exchange 'x' refused",
                Code.ACCESS_REFUSED,
            ),
            (541, "INTERNAL_ERROR", Code.NACKED),
        ],
        ids=["too large", "no permission", "no permission for the topic", "unheard of"],
    )
    def test_one_message_that_closes_the_channel_does_not_hold_up_the_others(
        self, reply_code, reply_text, expected
    ):
        def refuse_the_large_one(talk):
            talk.handshake()
            for tag, size in talk.messages():
                if size == 3:
                    talk.close_channel(reply_code, reply_text)
                else:
                    talk.ack(tag)

        bad = to_queue("bad", 1, body=b"123", exchange="x")
        with ScriptedBroker(refuse_the_large_one) as broker:
            outcomes = publish(
                broker.url,
                [to_queue("q", 0, body=b"1"), bad, to_queue("q", 2, body=b"1")],
                timeout_s=5,
            )

        assert codes(outcomes) == [Code.DELIVERED, expected, Code.DELIVERED]
        assert outcomes[1].detail == reply_text

    def test_a_refused_topic_spares_the_other_topics_of_the_exchange(self):
        text = "ACCESS_REFUSED - access to topic 'bad' in exchange 'x' in vhost '/' refused"

        def refuse_one_topic(talk):
            talk.handshake()
            for tag, size in talk.messages():
                if size == 3:
                    talk.close_channel(403, text)
                else:
                    talk.ack(tag)

        bad = to_queue("bad", 0, body=b"123", exchange="x")
        good = to_queue("good", 1, body=b"1", exchange="x")
        with ScriptedBroker(refuse_one_topic) as broker:
            outcomes = publish(broker.url, [bad, good], timeout_s=5)

        assert codes(outcomes) == [Code.ACCESS_REFUSED, Code.DELIVERED]

    def test_no_thread_and_no_socket_is_left_behind(self):
        before = threading.active_count()

        with ScriptedBroker(ack_all) as broker:
            publish(broker.url, [to_queue("q")], timeout_s=5)

        assert threading.active_count() == before
