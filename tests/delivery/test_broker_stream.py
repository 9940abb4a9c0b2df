"""A stream to a broker over time: messages that come later, confirms that never come, connections that end."""

from __future__ import annotations

import asyncio

from delivery.broker_faults import Addressed
from delivery.broker_stream import Stream
from delivery.outcome import Code, Message
from tests.delivery.scripted_broker import ScriptedBroker, ack_all


def numbered(*numbers):
    return [
        (n, Addressed(message=Message(id=f"msg_{n}", body=b"{}"), routing_key="q")) for n in numbers
    ]


def streaming(url, talk, **terms):
    """Run ``talk(stream, ended)``: ``ended`` is a queue of (number, code)."""

    async def run():
        ended = asyncio.Queue()
        stream = Stream(url, lambda n, outcome: ended.put_nowait((n, outcome.code)), **terms)
        try:
            return await talk(stream, ended)
        finally:
            await stream.close()

    return asyncio.run(run())


async def next_of(ended, count):
    return dict([await asyncio.wait_for(ended.get(), 5) for _ in range(count)])


def test_what_is_added_later_leaves_by_the_same_connection():
    async def talk(stream, ended):
        stream.add(numbered(1, 2))
        first = await next_of(ended, 2)
        stream.add(numbered(3))
        return first | await next_of(ended, 1)

    with ScriptedBroker(ack_all) as broker:
        told = streaming(broker.url, talk)

    assert told == dict.fromkeys((1, 2, 3), Code.DELIVERED)
    assert broker.received == [["msg_1", "msg_2", "msg_3"]]


def test_one_that_is_never_confirmed_is_overdue_alone_and_others_go_on():
    def ack_all_but_the_first(talk):
        talk.handshake()
        for tag, _ in talk.messages():
            if tag > 1:
                talk.ack(tag)

    async def talk(stream, ended):
        stream.add(numbered(1))
        await asyncio.sleep(0.2)
        stream.add(numbered(2))
        told = await next_of(ended, 2)
        stream.add(numbered(3))
        return told | await next_of(ended, 1)

    with ScriptedBroker(ack_all_but_the_first) as broker:
        told = streaming(broker.url, talk, timeout_s=0.5, window=2)

    assert told == {1: Code.TIMEOUT, 2: Code.DELIVERED, 3: Code.DELIVERED}
    assert broker.received == [["msg_1", "msg_2", "msg_3"]]


def test_a_connection_that_says_nothing_is_left_for_a_new_one():
    def say_nothing(talk):
        talk.handshake()
        list(talk.messages(says_goodbye=False))

    async def talk(stream, ended):
        stream.add(numbered(1))
        await asyncio.sleep(0.3)
        stream.add(numbered(2))
        return await next_of(ended, 2)

    with ScriptedBroker(say_nothing, ack_all) as broker:
        told = streaming(broker.url, talk, timeout_s=0.5)

    assert told == {1: Code.TIMEOUT, 2: Code.DELIVERED}
    assert broker.received[1] == ["msg_2"]


def test_a_broker_that_is_back_is_found_by_what_comes_next():
    async def talk(stream, ended):
        stream.add(numbered(1))
        lost = await next_of(ended, 1)
        stream.add(numbered(2))
        return lost | await next_of(ended, 1)

    def hang_up(_talk):
        return

    with ScriptedBroker(hang_up, ack_all) as broker:
        told = streaming(broker.url, talk)

    assert told == {1: Code.CONNECTION_ERROR, 2: Code.DELIVERED}


def test_what_came_back_once_may_be_delivered_the_next_time():
    def give_the_first_two_back(talk):
        talk.handshake()
        for tag, _ in talk.messages():
            if tag < 3:
                talk.give_back("msg_1", "q", b"{}")
            if tag > 1:
                talk.ack(tag, multiple=True)

    async def talk(stream, ended):
        stream.add(numbered(1, 1))
        first = [await ended.get(), await ended.get()]
        stream.add(numbered(1))
        return [*first, await ended.get()]

    with ScriptedBroker(give_the_first_two_back) as broker:
        told = streaming(broker.url, talk)

    assert told == [(1, Code.QUEUE_NOT_FOUND), (1, Code.QUEUE_NOT_FOUND), (1, Code.DELIVERED)]


def test_one_that_pika_cannot_write_is_settled_alone(monkeypatch):
    from delivery import broker_stream

    def unfit(message):
        if message.id == "msg_2":
            raise TypeError("a header of no known type")
        return properties_of(message)

    properties_of = broker_stream.properties_of
    monkeypatch.setattr(broker_stream, "properties_of", unfit)

    async def talk(stream, ended):
        stream.add(numbered(1, 2, 3))
        return await next_of(ended, 3)

    with ScriptedBroker(ack_all) as broker:
        told = streaming(broker.url, talk)

    assert told == {1: Code.DELIVERED, 2: Code.INTERNAL_ERROR, 3: Code.DELIVERED}
    assert broker.received == [["msg_1", "msg_3"]]


def test_more_than_the_window_leave_as_confirms_come_in():
    most_open = []

    def count_open(talk):
        talk.handshake()
        unanswered = []
        for tag, _ in talk.messages():
            unanswered.append(tag)
            most_open.append(len(unanswered))
            if len(unanswered) == 4:
                talk.ack(unanswered.pop(), multiple=True)
                unanswered.clear()

    async def talk(stream, ended):
        stream.add(numbered(*range(40)))
        return await next_of(ended, 40)

    with ScriptedBroker(count_open) as broker:
        told = streaming(broker.url, talk, window=4)

    assert set(told.values()) == {Code.DELIVERED}
    assert max(most_open) == 4
