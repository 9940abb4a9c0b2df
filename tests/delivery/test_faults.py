"""What goes wrong between us and a receiver, on real sockets: what follows, and what must not."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections import Counter
from datetime import timedelta
from ipaddress import ip_network

import pytest
from django.db import transaction
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batching.lifecycle import Actor
from batching.models import Request
from batching.reach import AddressGuard
from batching.steering import Refused
from delivery import destinations, dispatch
from delivery.models import Attempt
from delivery.outcome import Code
from delivery.webhook import WebhookSender
from tests.batching.rows import a_destination
from tests.batching.test_reach import DENIED, SHUT
from tests.delivery.receivers import answering
from tests.delivery.results import a_result, listening
from tests.delivery.test_webhook import OK, QUICK, always, post, sent_to
from tests.delivery.workers import (
    Gate,
    another_process,
    dispatching,
    end_leases,
    end_waits,
    place_at,
    states,
    until,
)

BY = Actor(name="someone")
BOMB = gzip.compress(bytes(50_000_000))
in_database = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def open_to_this_host(settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]


def ids_of(requests) -> Counter[str]:
    return Counter(request.headers["webhook-id"] for request in requests)


# What follows from an answer


@in_database
@pytest.mark.slow
def test_a_worker_killed_between_the_200_and_its_commit_posts_again_under_the_same_id(tmp_path):
    with listening(answering("200 OK")) as receiver:
        place = place_at(receiver, 1)
        with another_process(tmp_path, "dying_dispatch.py") as worker:
            assert worker.wait(60) == -9
        assert states(place) == {"delivering": 1}
        end_leases()

        assert dispatch.send_due() == 1

    assert states(place) == {"delivered": 1}
    assert list(ids_of(receiver.requests).values()) == [2]


@in_database
@pytest.mark.parametrize(
    ("answer", "state", "least_wait_s"),
    [
        (("400 Bad Request",), "processed", 3),
        (("404 Not Found",), "processed", 3),
        (("410 Gone",), "delivery_failed", None),
        (("429 Slow down", "retry-after: 600"), "processed", 590),
        (("500 Oh no",), "processed", 3),
        (("503 Busy",), "processed", 50),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_answer_decides_when_the_next_try_is(answer, state, least_wait_s):
    began = timezone.now()
    with listening(answering(*answer)) as receiver:
        place = place_at(receiver, 1)
        dispatch.send_due()
        dispatch.send_due()

    place.refresh_from_db()
    due_at = Request.objects.get().due_at
    assert len(receiver.requests) == 1
    assert states(place) == {state: 1}
    assert (place.disabled_at is not None) == (least_wait_s is None)
    assert due_at is None or due_at > began + timedelta(seconds=least_wait_s)


@in_database
def test_a_receiver_that_takes_the_sixth_try_has_got_one_id_six_times():
    failing = answering("500 No")

    async def sixth_time_lucky(visit):
        well = len(visit.receiver.requests) >= 5
        await (answering("200 OK") if well else failing)(visit)

    with listening(sixth_time_lucky) as receiver:
        place = place_at(receiver, 1)
        for _ in range(6):
            dispatch.send_due()
            end_waits()

    assert states(place) == {"delivered": 1}
    assert list(ids_of(receiver.requests).values()) == [6]
    assert len({request.body for request in receiver.requests}) == 1
    assert list(Attempt.objects.order_by("pk").values_list("number", flat=True)) == list(
        range(1, 7)
    )


# Floods


async def endless_body(visit):
    await visit.request()
    await visit.say(b"HTTP/1.1 500 No\r\n\r\n")
    while True:
        await visit.say(b"x" * 65_536)


async def bomb(visit):
    await visit.request()
    head = f"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: {len(BOMB)}\r\n\r\n"
    await visit.say(head.encode() + BOMB)


async def endless_headers(visit):
    await visit.request()
    await visit.say(b"HTTP/1.1 500 No\r\n")
    while True:
        await visit.say(b"x-header: value\r\n" * 1000)


async def endless_header(visit):
    await visit.request()
    await visit.say(b"HTTP/1.1 500 No\r\nx-header: ")
    while True:
        await visit.say(b"x" * 65_536)


@pytest.mark.parametrize("flood", [endless_body, bomb, endless_headers, endless_header])
def test_no_flood_of_an_answer_is_held_in_memory(flood):
    tracemalloc.start()
    try:
        outcome, _ = sent_to(flood)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not outcome.is_delivered
    assert len(outcome.answer) <= 8192
    assert most_bytes < 10_000_000


# Addresses that are shut


@pytest.fixture
def dialled(monkeypatch):
    """Every address that a socket of an event loop was connected to."""
    loop, seen = asyncio.selector_events.BaseSelectorEventLoop, []
    connect = loop.sock_connect

    async def noting(self, sock, address):
        seen.append(address[0])
        return await connect(self, sock, address)

    monkeypatch.setattr(loop, "sock_connect", noting)
    return seen


def test_a_name_that_leads_into_a_denied_range_gets_no_packet(dialled):
    firsts = {f"r{n}.test": str(ip_network(text)[0]) for n, text in enumerate(DENIED)}

    async def lookup(host):
        return [firsts[host]]

    async def scenario():
        async with WebhookSender(SHUT, QUICK, lookup) as sender:
            return [await post(sender, f"http://{host}/") for host in firsts]

    outcomes = asyncio.run(scenario())

    assert {outcome.code for outcome in outcomes} == {Code.BLOCKED_ADDRESS}
    assert dialled == []


def test_a_name_that_may_be_reached_is_dialled_at_the_address_that_was_judged(dialled):
    async def scenario():
        async with WebhookSender(
            AddressGuard.opening(["127.0.0.9"]), QUICK, always("127.0.0.9")
        ) as s:
            return await post(s, "http://receiver.test/")

    assert asyncio.run(scenario()).code is Code.CONNECTION_ERROR
    assert dialled == ["127.0.0.9"]


# Secrets and places that change while results wait


@in_database
def test_a_secret_that_is_rotated_between_two_tries_signs_the_second_one_first():
    with listening(answering("500 No")) as receiver:
        place = place_at(receiver, 1)
        old = place.secret
        dispatch.send_due()
        with transaction.atomic():
            new = destinations.rotate_secret(place, now=timezone.now())
        end_waits()
        dispatch.send_due()

    before, after = receiver.requests
    first = {"webhook-signature": after.headers["webhook-signature"].split()[0]}
    Webhook(old).verify(before.body, before.headers)
    Webhook(new).verify(after.body, after.headers | first)
    Webhook(old).verify(after.body, after.headers)
    assert before.headers["webhook-id"] == after.headers["webhook-id"]


@in_database
def test_a_request_that_is_replayed_by_a_stranger_is_refused_by_the_verifier(monkeypatch):
    with listening(answering("200 OK")) as receiver:
        place = place_at(receiver, 1)
        earlier = timezone.now() - timedelta(seconds=301)
        monkeypatch.setattr(dispatch.timezone, "now", lambda: earlier)
        Request.objects.update(due_at=earlier)
        dispatch.send_due()

    (request,) = receiver.requests
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(place.secret).verify(request.body, request.headers)


@in_database
@pytest.mark.slow
def test_a_url_that_is_edited_while_a_thousand_wait_is_where_all_but_those_on_their_way_go():
    gate = Gate()
    with listening(gate) as old, listening(OK) as new:
        place = place_at(old, 1_000, max_in_flight=4)
        with dispatching():
            until(lambda: gate.inside == 4, "the first tries")
            type(place).objects.update(url=new.url("/new"))
            gate.open()

    assert states(place) == {"delivered": 1_000}
    ids = ids_of([*old.requests, *new.requests])
    assert len(ids) == 1_000
    assert set(ids.values()) == {1}
    assert len(old.requests) < 100


@in_database
def test_a_url_that_is_edited_to_a_shut_address_gives_up_what_waits_without_a_packet(settings):
    with listening(answering("200 OK")) as receiver:
        place = place_at(receiver, 20)
        settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = []
        dispatch.send_due()

    assert receiver.connections == 0
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Code.BLOCKED_ADDRESS}
    assert states(place)["delivery_failed"] > 0
    assert Request.objects.filter(destination=place, due_at=None, dead_at=None).count() == 0


@in_database
@pytest.mark.slow
def test_a_place_that_is_disabled_while_results_wait_holds_them_and_sends_them_once_enabled():
    gate = Gate()
    with listening(gate) as receiver:
        place = place_at(receiver, 200, max_in_flight=2)
        with dispatching():
            until(lambda: gate.inside == 2, "the first tries")
            type(place).objects.update(disabled_at=timezone.now())
            until(lambda: states(place)["processed"] == 198, "the others to be given back")
            gate.open()
        assert dispatch.send_due() == 0
        with transaction.atomic():
            destinations.enable(place, by=BY, reason="well again", now=timezone.now())
        while dispatch.send_due():
            pass

    assert states(place) == {"delivered": 200}
    assert set(ids_of(receiver.requests).values()) == {1}


@in_database
def test_a_place_with_results_is_not_deleted_and_what_ends_after_its_deletion_is_held():
    place = a_destination()
    a_result(place)
    with pytest.raises(Refused), transaction.atomic():
        destinations.delete(place, by=BY, reason="old", now=timezone.now())
    Request.objects.update(due_at=None, state="delivered")
    with transaction.atomic():
        destinations.delete(place, by=BY, reason="old", now=timezone.now())
    late = a_result(place)

    assert dispatch.send_due() == 0

    late.refresh_from_db()
    assert (late.state, late.tries) == ("processed", 0)
    assert late.due_at is not None
