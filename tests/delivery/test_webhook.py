"""Webhooks sent to scripted receivers over real sockets: how each ending is told."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import ssl
import warnings
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from batching.reach import AddressGuard
from delivery.dialing import tls_context
from delivery.outcome import Code, Message
from delivery.signing import new_secret
from delivery.webhook import (
    Endpoint,
    WebhookSender,
    WebhookTerms,
    check_headers,
    parse_retry_after,
)
from tests.delivery.certificates import Authority
from tests.delivery.receivers import answering, hanging, hanging_up, receiving

LOCAL = AddressGuard.opening(["127.0.0.1"])
SHUT = AddressGuard()
QUICK = WebhookTerms(timeout_s=0.5, connect_timeout_s=0.3)
MESSAGE = Message(id="msg_1", body=b'{"answer": 42}', headers=(("x-batcher-custom-id", "a1"),))
NOW = datetime(2026, 3, 1, 12, 0, 0, 900_000, tzinfo=UTC)
OK = answering("200 OK", body=b"thanks")


async def post(sender, url, *, message=MESSAGE, now=NOW, line=None, **endpoint):
    return await sender.send(Endpoint(url=url, **endpoint), message, now=now, line=line)


def sent_to(act, *, path="/", terms=QUICK, message=MESSAGE, tls=None, now=NOW, **endpoint):
    """Send once to such a receiver; return the outcome and what the receiver saw."""

    async def scenario():
        async with receiving(act, tls=tls) as receiver, WebhookSender(LOCAL, terms) as sender:
            url = receiver.url(path)
            return await post(sender, url, message=message, now=now, **endpoint), receiver

    return asyncio.run(scenario())


def always(*addresses):
    """A lookup that knows one answer; it counts how often it was asked."""

    async def lookup(host):
        lookup.asked.append(host)
        return list(addresses)

    lookup.asked = []
    return lookup


class TestRequest:
    def test_the_request_is_what_the_contract_says(self):
        outcome, receiver = sent_to(OK, path="/hook?token=1")

        assert outcome.is_delivered
        assert (outcome.status, outcome.answer) == (200, b"thanks")
        assert outcome.address == "127.0.0.1"
        assert 0 < outcome.duration_s < 0.5
        [request] = receiver.requests
        assert request.first_line == "POST /hook?token=1 HTTP/1.1"
        assert request.body == b'{"answer": 42}'
        assert request.headers == {
            "host": f"127.0.0.1:{receiver.port}",
            "user-agent": "batcher",
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "content-length": "14",
            "idempotency-key": "msg_1",
            "x-batcher-custom-id": "a1",
            "webhook-id": "msg_1",
            "webhook-timestamp": "1772366400",
        }

    def test_every_secret_signs_and_the_library_verifies_each(self):
        new, old, now = new_secret(), new_secret(), datetime.now(UTC)

        _, receiver = sent_to(OK, secrets=(new, old), now=now)

        [request] = receiver.requests
        assert request.headers["webhook-signature"].count("v1,") == 2
        for secret in (new, old):
            Webhook(secret).verify(request.body, request.headers)

    def test_a_destinations_own_headers_are_sent(self):
        _, receiver = sent_to(OK, headers=(("Authorization", "Bearer xyz"),))

        assert receiver.requests[0].headers["authorization"] == "Bearer xyz"

    def test_a_destinations_own_user_agent_comes_in_place_of_ours(self):
        _, receiver = sent_to(OK, headers=(("User-Agent", "theirs"),))

        assert receiver.requests[0].headers["user-agent"] == "theirs"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("100% of a-1", "100% of a-1"),
            ("Zürich", "Z%C3%BCrich"),
            ("a\r\nx-evil: 1", "a%0D%0Ax-evil: 1"),
            ("50 % \u2028", "50 %25 %E2%80%A8"),
            ("\ud800", "%ED%A0%80"),
        ],
    )
    def test_a_custom_id_fits_into_a_header_whatever_it_is(self, value, expected):
        message = Message(id="msg_1", body=b"{}", headers=(("x-batcher-custom-id", value),))

        outcome, receiver = sent_to(OK, message=message)

        assert outcome.is_delivered
        assert receiver.requests[0].headers["x-batcher-custom-id"] == expected

    def test_a_body_of_many_megabytes_arrives_whole(self):
        message = Message(id="msg_1", body=b"x" * 5_000_000)

        outcome, receiver = sent_to(OK, message=message, terms=WebhookTerms(timeout_s=5))

        assert outcome.is_delivered
        assert receiver.requests[0].body == message.body

    def test_no_proxy_variable_is_obeyed(self, monkeypatch):
        async def scenario():
            async with receiving(OK) as proxy, receiving(OK) as receiver:
                for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
                    monkeypatch.setenv(name, proxy.url())
                async with WebhookSender(LOCAL, QUICK) as sender:
                    return await post(sender, receiver.url()), proxy.connections

        outcome, proxy_connections = asyncio.run(scenario())

        assert outcome.is_delivered
        assert proxy_connections == 0

    def test_no_password_of_the_computers_netrc_is_sent(self, monkeypatch, tmp_path):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password hidden\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        _, receiver = sent_to(OK)

        assert "authorization" not in receiver.requests[0].headers

    @pytest.mark.parametrize(
        "endpoint",
        [
            {"url": "ftp://example.com/"},
            {"url": "https://user:pw@example.com/"},
            {"url": "https://example.com/", "secrets": ("whsec_not base64",)},
            {"url": "https://example.com/", "headers": (("Host", "internal"),)},
        ],
        ids=["scheme", "userinfo", "secret", "header"],
    )
    def test_an_unfit_destination_is_told_without_a_connection(self, endpoint):
        async def scenario():
            lookup = always("127.0.0.1")
            async with WebhookSender(LOCAL, QUICK, lookup) as sender:
                return await post(sender, **endpoint), lookup.asked

        outcome, asked = asyncio.run(scenario())

        assert outcome.code is Code.INVALID_DESTINATION
        assert "pw" not in outcome.detail
        assert asked == []


class TestAnswers:
    @pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
    def test_every_2xx_is_delivered(self, status):
        assert sent_to(answering(status))[0].is_delivered

    @pytest.mark.parametrize(
        "status", ["400 Bad Request", "404 Not Found", "500 Oh no", "503 Busy"]
    )
    def test_other_answers_are_told_with_status_and_text(self, status):
        outcome, _ = sent_to(answering(status, body=b'{"code": "INVALID"}'))

        assert outcome.code is Code.HTTP_STATUS
        assert outcome.status == int(status[:3])
        assert outcome.detail == status
        assert outcome.answer == b'{"code": "INVALID"}'

    def test_gone_is_told_apart(self):
        outcome, _ = sent_to(answering("410 Gone"))

        assert (outcome.code, outcome.status) == (Code.GONE, 410)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_a_failure_and_never_followed(self, status):
        async def scenario():
            async with receiving(OK) as trap:
                location = f"location: http://u:p@127.0.0.1:{trap.port}/inside?key=hidden"
                act = answering(f"{status} Moved", location)
                async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                    return await post(sender, receiver.url()), trap.connections

        outcome, followed = asyncio.run(scenario())

        assert followed == 0
        assert (outcome.code, outcome.status) == (Code.REDIRECT, status)
        assert outcome.detail == f"{status} to 127.0.0.1; not followed"

    @pytest.mark.parametrize("headers", [(), ("location: http://[::1",)], ids=["none", "broken"])
    def test_a_redirect_to_nowhere_is_a_redirect_still(self, headers):
        assert sent_to(answering("302 Found", *headers))[0].code is Code.REDIRECT

    def test_retry_after_is_read(self):
        outcome, _ = sent_to(answering("429 Slow down", "retry-after: 120"))

        assert outcome.retry_after_s == 120

    def test_a_retry_after_that_says_nothing_is_ignored_and_logged(self, caplog):
        caplog.set_level(logging.INFO)

        outcome, _ = sent_to(answering("503 Busy", "retry-after: soon"))

        assert outcome.retry_after_s is None
        assert "retry-after not understood" in caplog.text

    def test_an_answer_given_before_the_body_was_taken_is_heard(self):
        async def refuse_at_once(visit):
            await visit.reader.readuntil(b"\r\n\r\n")
            await visit.say(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\n")

        message = Message(id="msg_1", body=b"x" * 5_000_000)
        outcome, _ = sent_to(refuse_at_once, message=message)

        assert (outcome.code, outcome.status) == (Code.HTTP_STATUS, 413)

    def test_a_provisional_answer_is_passed_over(self):
        async def first_a_hint(visit):
            await visit.request()
            await visit.say(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
            await visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            await visit.request()

        assert sent_to(first_a_hint)[0].status == 204

    def test_an_answer_in_chunks_is_read_to_its_end_and_its_connection_kept(self):
        async def in_chunks(visit):
            while await visit.request():
                await visit.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                await visit.drip([b"2\r\nab\r\n", b"1\r\nc\r\n", b"0\r\n\r\n"])

        async def scenario():
            async with receiving(in_chunks) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                outcomes = [await post(sender, receiver.url()) for _ in range(2)]
                return outcomes, receiver.connections

        outcomes, connections = asyncio.run(scenario())

        assert [outcome.answer for outcome in outcomes] == [b"abc", b"abc"]
        assert connections == 1

    def test_an_answer_that_asks_to_close_ends_its_connection(self):
        async def scenario():
            act = answering("200 OK", "connection: close")
            async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                outcomes = [await post(sender, receiver.url()) for _ in range(2)]
                return outcomes, receiver.connections

        outcomes, connections = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert connections == 2

    def test_only_the_start_of_a_long_answer_is_kept(self):
        outcome, _ = sent_to(answering("500 No", body=b"x" * 20_000))

        assert outcome.answer == b"x" * 8192

    def test_a_compressed_answer_is_not_unpacked(self):
        bomb = gzip.compress(bytes(10_000_000))

        outcome, _ = sent_to(answering("500 No", "content-encoding: gzip", body=bomb))

        assert outcome.answer == bomb[:8192]

    def test_an_endless_answer_is_cut_and_its_connection_closed(self):
        async def pour(visit):
            await visit.request()
            await visit.say(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await visit.say(b"x" * 65536)

        outcome, _ = sent_to(pour)

        assert outcome.is_delivered
        assert len(outcome.answer) == 8192
        assert outcome.duration_s < 0.4

    @pytest.mark.parametrize(
        ("status", "code"), [("200 OK", Code.DELIVERED), ("500 No", Code.HTTP_STATUS)]
    )
    def test_a_dripping_answer_ends_at_the_deadline_with_its_status(self, status, code):
        async def drip(visit):
            await visit.request()
            await visit.say(f"HTTP/1.1 {status}\r\ncontent-length: 5000\r\n\r\n".encode())
            await visit.drip([b"x"] * 500)

        outcome, _ = sent_to(drip)

        assert outcome.code is code
        assert outcome.answer.startswith(b"xx")
        assert 0.5 <= outcome.duration_s < 0.9

    def test_what_a_receiver_echoes_is_kept_without_what_is_private(self):
        async def echo(visit):
            request = await visit.request()
            said = f"{request.first_line} {request.headers}".encode()
            await visit.say(b"HTTP/1.1 500 No\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))

        outcome, _ = sent_to(
            echo,
            path="/hook?token=hidden1",
            secrets=(new_secret(),),
            headers=(("authorization", "Bearer hidden2"),),
        )

        assert b"x-batcher-custom-id" in outcome.answer
        assert b"hidden" not in outcome.answer
        assert b"v1," not in outcome.answer


class TestFailures:
    def test_a_receiver_that_hangs_is_a_timeout(self):
        outcome, _ = sent_to(hanging)

        assert outcome.code is Code.TIMEOUT
        assert outcome.address == "127.0.0.1"
        assert 0.5 <= outcome.duration_s < 0.9

    def test_dripping_headers_are_a_timeout(self):
        async def drip(visit):
            await visit.request()
            await visit.drip([b"HTTP/1.1 200 OK\r\n", *[b"x-a: b\r\n"] * 90, *[b"x"] * 500])

        outcome, _ = sent_to(drip)

        assert outcome.code is Code.TIMEOUT
        assert outcome.duration_s < 0.9

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 101 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 9000 + b"\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ],
        ids=["too many headers", "too long a header", "no HTTP"],
    )
    def test_what_is_not_http_or_beyond_our_caps_is_told(self, answer):
        async def lie(visit):
            await visit.request()
            await visit.say(answer)
            await asyncio.sleep(1)

        outcome, _ = sent_to(lie)

        assert outcome.code is Code.INVALID_ANSWER

    def test_a_connection_closed_without_an_answer_is_not_tried_again(self):
        outcome, receiver = sent_to(hanging_up)

        assert outcome.code is Code.CONNECTION_ERROR
        assert len(receiver.requests) == 1

    def test_a_closed_port_is_a_connection_error(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

        async def scenario():
            async with WebhookSender(LOCAL, QUICK) as sender:
                return await post(sender, f"http://127.0.0.1:{port}/?token=hidden")

        outcome = asyncio.run(scenario())

        assert outcome.code is Code.CONNECTION_ERROR
        assert outcome.address == "127.0.0.1"
        assert "hidden" not in outcome.detail

    @pytest.mark.parametrize("kind", ["unknown", "failing", "empty", "slow"])
    def test_a_name_that_cannot_be_resolved_is_a_dns_error(self, kind):
        async def lookup(host):
            if kind == "unknown":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            if kind == "failing":
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            if kind == "slow":
                await asyncio.sleep(60)
            return []

        async def scenario():
            async with WebhookSender(LOCAL, QUICK, lookup) as sender:
                return await post(sender, "http://receiver.test/?token=hidden")

        outcome = asyncio.run(scenario())

        assert outcome.code is Code.DNS_ERROR
        assert outcome.detail.startswith("receiver.test could not be resolved: ")
        assert outcome.duration_s < 0.9

    def test_the_systems_own_lookup_says_what_is_unknown(self):
        async def scenario():
            async with WebhookSender(SHUT, QUICK) as sender:
                return await post(sender, "http://receiver.invalid/")

        assert asyncio.run(scenario()).code is Code.DNS_ERROR

    def test_nothing_private_is_logged_or_shown(self, caplog):
        caplog.set_level(logging.DEBUG)
        secret = new_secret()
        private = {"secrets": (secret,), "headers": (("authorization", "Bearer hidden2"),)}

        outcomes = [
            sent_to(act, path="/hook?token=hidden1", **private)[0]
            for act in (OK, answering("500 No", "retry-after: x"), hanging_up, hanging)
        ]

        seen = caplog.text + repr(outcomes) + repr(Endpoint(url="http://x/?hidden1", **private))
        for text in ("hidden1", "hidden2", secret, 'answer\\": 42', '"answer": 42'):
            assert text not in seen


class TestConnections:
    def test_connections_are_kept_and_used_again(self):
        async def scenario():
            async with receiving(OK) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                outcomes = [await post(sender, receiver.url()) for _ in range(5)]
                return outcomes, receiver

        outcomes, receiver = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert [outcome.address for outcome in outcomes] == ["127.0.0.1"] * 5
        assert receiver.connections == 1

    def test_a_line_keeps_its_connection_for_the_same_place_and_leaves_it_to_others(self):
        async def scenario():
            async with (
                receiving(OK) as one,
                receiving(OK) as other,
                WebhookSender(LOCAL, QUICK) as sender,
            ):
                with sender.line() as line:
                    places = [one.url("/a"), one.url("/a"), other.url(), one.url("/b")]
                    outcomes = [await post(sender, place, line=line) for place in places]
                outcomes += [await post(sender, one.url("/c"))]
                return outcomes, one, other

        outcomes, one, other = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert [outcome.address for outcome in outcomes] == ["127.0.0.1"] * 5
        assert (one.connections, other.connections) == (1, 1)

    def test_a_line_dials_again_when_its_connection_was_closed(self):
        async def scenario():
            act = answering("200 OK", "connection: close")
            async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                with sender.line() as line:
                    outcomes = [await post(sender, receiver.url(), line=line) for _ in range(3)]
                return outcomes, receiver

        outcomes, receiver = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert receiver.connections == 3

    def test_an_answer_that_nobody_asked_for_is_no_answer_to_the_next_post(self):
        async def answer_and_say_more(visit):
            await visit.request()
            await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await asyncio.sleep(0.05)
            await visit.say(b"HTTP/1.1 408 Idle\r\ncontent-length: 0\r\n\r\n")
            await visit.request()

        async def scenario():
            act = answer_and_say_more
            async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                with sender.line() as line:
                    first = await post(sender, receiver.url(), line=line)
                    await asyncio.sleep(0.15)
                    return first, await post(sender, receiver.url(), line=line), receiver

        first, second, receiver = asyncio.run(scenario())

        assert (first.status, second.status) == (200, 200)
        assert receiver.connections == 2

    def test_a_connection_that_was_kept_for_long_is_not_used_again(self, monkeypatch):
        monkeypatch.setattr("delivery.posting.KEEP_ALIVE_S", 0.05)

        async def scenario():
            async with receiving(OK) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                with sender.line() as line:
                    await post(sender, receiver.url(), line=line)
                    await post(sender, receiver.url(), line=line)
                    await asyncio.sleep(0.1)
                    await post(sender, receiver.url(), line=line)
                return receiver

        assert asyncio.run(scenario()).connections == 2

    def test_a_line_goes_on_after_a_post_that_took_too_long(self):
        async def scenario():
            async with receiving(hanging) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                with sender.line() as line:
                    return [await post(sender, receiver.url(), line=line) for _ in range(2)]

        assert [outcome.code for outcome in asyncio.run(scenario())] == [Code.TIMEOUT] * 2

    def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt(self):
        async def answer_once_then_hang_up(visit):
            await visit.request()
            await visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            await visit.request()

        async def scenario():
            act = answer_once_then_hang_up
            async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                outcomes = [await post(sender, receiver.url()) for _ in range(2)]
                return outcomes, receiver

        outcomes, receiver = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert receiver.connections == 2
        assert {request.headers["webhook-id"] for request in receiver.requests} == {"msg_1"}

    def test_a_half_read_answer_ends_its_connection(self):
        async def scenario():
            act = answering("500 No", body=b"x" * 1_000_000)
            async with receiving(act) as receiver, WebhookSender(LOCAL, QUICK) as sender:
                outcomes = [await post(sender, receiver.url()) for _ in range(2)]
                return outcomes, receiver

        outcomes, receiver = asyncio.run(scenario())

        assert [outcome.status for outcome in outcomes] == [500, 500]
        assert receiver.connections == 2

    def test_many_are_in_flight_at_a_time_and_share_one_lookup(self):
        inside = asyncio.Semaphore(0)

        async def answers_once_ten_are_there(visit):
            while await visit.request():
                inside.release()
                async with asyncio.timeout(10):
                    while inside._value < 10:
                        await asyncio.sleep(0.01)
                await visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")

        async def scenario():
            lookup = always("127.0.0.1")
            async with (
                receiving(answers_once_ten_are_there) as receiver,
                WebhookSender(LOCAL, WebhookTerms(timeout_s=20), lookup) as sender,
            ):
                url = receiver.url(host="receiver.test")
                return await asyncio.gather(*(post(sender, url) for _ in range(100))), lookup.asked

        outcomes, asked = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert asked == ["receiver.test"]

    def test_a_hanging_receiver_does_not_hold_up_another(self):
        terms = WebhookTerms(timeout_s=2)

        async def scenario():
            async with (
                receiving(hanging) as dead,
                receiving(OK) as healthy,
                WebhookSender(LOCAL, terms) as sender,
            ):
                stuck = [asyncio.ensure_future(post(sender, dead.url())) for _ in range(50)]
                outcomes = [await post(sender, healthy.url()) for _ in range(20)]
                still_stuck = not any(task.done() for task in stuck)
                return outcomes, still_stuck, await asyncio.gather(*stuck)

        outcomes, still_stuck, dead_outcomes = asyncio.run(scenario())

        assert all(outcome.is_delivered for outcome in outcomes)
        assert still_stuck
        assert {outcome.code for outcome in dead_outcomes} == {Code.TIMEOUT}


class TestGuard:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "0.0.0.0",  # noqa: S104  # a way home that must be shut
            "[::ffff:127.0.0.1]",
            "localhost",
            "localhost.",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "①②⑦.⓪.⓪.①",
        ],
    )
    def test_no_spelling_of_loopback_gets_a_connection(self, host):
        async def scenario():
            async with receiving(OK) as trap, WebhookSender(SHUT, QUICK) as sender:
                return await post(sender, trap.url(host=host)), trap.connections

        outcome, connections = asyncio.run(scenario())

        # Which of the three depends on what the system's resolver makes of the spelling.
        refused = {Code.BLOCKED_ADDRESS, Code.INVALID_DESTINATION, Code.DNS_ERROR}
        assert outcome.code in refused
        assert connections == 0

    def test_a_literal_address_is_judged_and_named(self):
        async def scenario():
            async with WebhookSender(SHUT, QUICK) as sender:
                return await post(sender, "http://169.254.169.254/latest/?token=hidden")

        outcome = asyncio.run(scenario())

        assert outcome.code is Code.BLOCKED_ADDRESS
        said = "169.254.169.254 leads to 169.254.169.254: a metadata or link-local address"
        assert outcome.detail == said

    def test_a_name_that_changes_its_mind_is_caught(self):
        answers = [["127.0.0.2"], ["127.0.0.1"]]

        async def lookup(host):
            return answers.pop(0)

        async def scenario():
            guard = AddressGuard.opening(["127.0.0.2"])
            async with (
                receiving(OK, host="127.0.0.2") as receiver,
                receiving(OK, host="127.0.0.1", port=receiver.port) as trap,
            ):
                url = receiver.url(host="rebind.test")
                outcomes = []
                for _ in range(2):
                    async with WebhookSender(guard, QUICK, lookup) as sender:
                        outcomes.append(await post(sender, url))
                return outcomes, receiver, trap

        [first, second], receiver, trap = asyncio.run(scenario())

        assert first.is_delivered
        assert first.address == "127.0.0.2"
        assert second.code is Code.BLOCKED_ADDRESS
        assert (receiver.connections, trap.connections) == (1, 0)

    def test_a_name_with_one_private_address_among_public_ones_is_refused(self):
        async def scenario():
            lookup = always("8.8.8.8", "127.0.0.1", "2606:4700::1111")
            async with WebhookSender(SHUT, QUICK, lookup) as sender:
                return await post(sender, "http://mixed.test/"), lookup.asked

        outcome, asked = asyncio.run(scenario())

        assert outcome.code is Code.BLOCKED_ADDRESS
        assert asked == ["mixed.test"]

    def test_an_opened_host_is_reached_at_its_port_only(self):
        async def scenario():
            async with receiving(OK) as receiver, receiving(OK) as other:
                guard = AddressGuard.opening([f"receiver:{receiver.port}"])
                async with WebhookSender(guard, QUICK, always("127.0.0.1")) as sender:
                    hosts = [receiver.url(host="receiver"), other.url(host="receiver")]
                    return [await post(sender, url) for url in hosts], other.connections

        [opened, shut], other_connections = asyncio.run(scenario())

        assert opened.is_delivered
        assert shut.code is Code.BLOCKED_ADDRESS
        assert other_connections == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


def over_tls(authority, context, *, trusts=True, act=OK):
    terms = WebhookTerms(
        timeout_s=2, connect_timeout_s=1, ca_bundle=authority.bundle if trusts else None
    )

    async def scenario():
        async with (
            receiving(act, tls=context) as receiver,
            WebhookSender(LOCAL, terms, always("127.0.0.1")) as sender,
        ):
            url = receiver.url("/?token=hidden", host="receiver.test", scheme="https")
            return await post(sender, url), receiver

    return asyncio.run(scenario())


class TestTls:
    def test_a_certificate_of_a_trusted_authority_is_accepted_for_its_host(self, authority):
        outcome, receiver = over_tls(authority, authority.server("receiver.test"))

        assert outcome.is_delivered
        assert outcome.address == "127.0.0.1"
        assert receiver.requests[0].headers["host"] == f"receiver.test:{receiver.port}"

    @pytest.mark.parametrize(
        ("host", "days", "trusts", "complaint"),
        [
            ("other.test", 1, True, "Hostname mismatch"),
            ("127.0.0.1", 1, True, "Hostname mismatch"),
            ("receiver.test", -1, True, "expired"),
            ("receiver.test", 1, False, "unable to get local issuer"),
        ],
        ids=["wrong host", "the address instead of the host", "expired", "unknown authority"],
    )
    def test_any_other_certificate_is_refused(self, authority, host, days, trusts, complaint):
        outcome, receiver = over_tls(authority, authority.server(host, days=days), trusts=trusts)

        assert outcome.code is Code.TLS_ERROR
        assert complaint in outcome.detail
        assert "hidden" not in outcome.detail
        assert receiver.requests == []

    def test_old_tls_is_refused(self, authority):
        context = authority.server("receiver.test")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

        outcome, _ = over_tls(authority, context)

        assert outcome.code is Code.TLS_ERROR
        assert tls_context().minimum_version is ssl.TLSVersion.TLSv1_2

    def test_a_port_that_does_not_speak_tls_is_told_and_gets_no_plain_request(self, authority):
        async def answer_in_plain(visit):
            visit.receiver.requests.append(await visit.reader.read(100))
            await visit.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        outcome, receiver = over_tls(authority, None, act=answer_in_plain)

        assert outcome.code is Code.TLS_ERROR
        assert all(b"POST" not in said for said in receiver.requests)

    def test_a_handshake_that_hangs_is_a_timeout(self, authority):
        async def say_nothing(visit):
            await asyncio.sleep(60)

        outcome, _ = over_tls(authority, None, act=say_nothing)

        assert outcome.code is Code.TIMEOUT
        assert outcome.duration_s < 1.5

    def test_plain_http_can_be_forbidden(self):
        outcome, receiver = sent_to(OK, terms=WebhookTerms(https_only=True))

        assert outcome.code is Code.INVALID_DESTINATION
        assert receiver.connections == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("9" * 5000, 10**9),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun Mar  1 12:01:00 2026", 60),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:01:00 GMT", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_retry_after_is_seconds_or_a_date(value, expected):
    assert parse_retry_after(value, datetime(2026, 3, 1, 12, tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "x"),
        ("content-length", "1"),
        ("Webhook-Id", "x"),
        ("webhook-signature", "x"),
        ("Idempotency-Key", "x"),
        ("X-Batcher-Request-Id", "x"),
        ("x-replay", "1"),
        ("transfer-encoding", "chunked"),
        ("bad name", "x"),
        ("", "x"),
        ("x-a", "a\r\nb: c"),
        ("x-a", "é"),
    ],
)
def test_a_destination_may_not_set_what_the_sender_sets(name, value):
    with pytest.raises(ValueError, match=r"header|value"):
        check_headers([(name, value)])


def test_a_destination_may_set_its_own_headers():
    check_headers([("Authorization", "Bearer x"), ("x-tenant", "7")])
