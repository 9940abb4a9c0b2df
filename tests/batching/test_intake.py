"""Lines become pending requests: each once, in order, byte for byte."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching.intake import Accepted, Rejected, accept
from batching.limits import line_bytes
from batching.models import Destination, Lane, Request, RequestBody
from batching.providers.openai import OpenAI
from batching.providers.openai_lines import render_line
from batching.tokens import estimates
from batching.wire import Delivery
from tests.batching.rows import (
    NOW,
    a_destination,
    a_lane,
    a_line,
    a_project,
    an_account,
    in_threads,
    log_of,
)

pytestmark = pytest.mark.django_db

TO_A_WEBHOOK = Delivery(type="webhook", url="https://example.org/hook")


@pytest.fixture(autouse=True)
def account():
    return an_account()


def take(*lines, **how):
    return accept(a_project(), lines, now=NOW, **how)


def test_answers_come_in_the_order_of_the_lines():
    lines = [a_line(f"id-{n}") for n in (3, 1, 2)]

    answers = take(*lines)

    assert [a.custom_id for a in answers] == ["id-3", "id-1", "id-2"]
    assert [a.is_new for a in answers] == [True] * 3
    assert list(Request.objects.order_by("pk").values_list("key", flat=True)) == [
        a.key for a in answers
    ]


def test_an_accepted_line_is_a_pending_request_with_its_birth_in_the_log():
    line = a_line(priority=7, max_wait_s=60, deliver_by=NOW, metadata=b'{"a":"b"}')

    take(line)

    request = Request.objects.get()
    assert (request.state, request.priority, request.attempt) == ("pending", 7, 1)
    assert request.seal_by == NOW + timedelta(seconds=60)
    assert request.deliver_by == request.created_at == NOW
    assert bytes(request.payload.metadata) == b'{"a":"b"}'
    assert log_of(request) == [(None, "accept", "pending", None, "accepted [by intake]")]


def test_a_line_that_says_nothing_waits_as_long_as_the_setting_says(settings):
    settings.BATCHER_MAX_WAIT_SECONDS = 90

    take(a_line())

    assert Request.objects.get().seal_by == NOW + timedelta(seconds=90)


def test_the_same_line_sent_twice_is_one_request():
    line = a_line("twice")
    (first,) = take(line)

    again, in_one_chunk = take(line, line)

    assert first.is_new
    assert (
        again
        == in_one_chunk
        == Accepted(key=first.key, custom_id="twice", state="pending", is_new=False)
    )
    assert Request.objects.count() == RequestBody.objects.count() == 1


def test_twins_in_one_chunk_are_one_new_request_and_one_known_one():
    first, second = take(a_line("twin"), a_line("twin"))

    assert (first.is_new, second.is_new) == (True, False)
    assert first.key == second.key


def test_another_body_under_a_known_id_is_refused_and_changes_nothing():
    (first,) = take(a_line("id"))
    before = bytes(RequestBody.objects.get().body)

    (other,) = take(a_line("id", body=b'{"model":"gpt-4o-mini","input":"other"}'))

    assert isinstance(other, Rejected)
    assert (other.code, other.pointer) == ("duplicate_custom_id", "/custom_id")
    assert bytes(RequestBody.objects.get().body) == before
    assert Request.objects.get().key == first.key


def test_the_first_of_two_bodies_in_one_chunk_wins():
    first, other = take(a_line("id"), a_line("id", body=b'{"model":"m","input":"other"}'))

    assert first.is_new
    assert other.code == "duplicate_custom_id"


def test_two_projects_may_use_the_same_id():
    answers = [accept(a_project(name), [a_line("id")], now=NOW) for name in ("a", "b")]

    assert answers[0][0].key != answers[1][0].key


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":"\\u0000"}',
        '{"model":"m","input":"a\u2028b\u2029c\u0085d"}'.encode(),
        b'{"model":"m","input":"\\ud800 alone"}',
        b'{ "input": 1.10, "model" : "m", "input": 1e400 }',
        b'{"model":"m","n":' + b"9" * 5000 + b"}",
    ],
    ids=["nul-escape", "line-separators", "lone-surrogate", "spaces-and-twins", "long-number"],
)
def test_a_body_is_stored_byte_for_byte(body):
    take(a_line(body=body))

    assert bytes(RequestBody.objects.get().body) == body


def test_a_line_too_large_for_its_lane_is_refused_and_the_rest_is_taken():
    fits = a_line("fits")
    an_account().__class__.objects.update(max_bytes=line_bytes(fits.url, fits.body))
    too_large = a_line("large", body=fits.body + b" ")

    large, small = take(too_large, fits)

    assert (large.code, large.pointer) == ("validation_error", "/body")
    assert small.is_new


def test_a_line_of_more_tokens_than_its_lane_may_enqueue_is_refused():
    fits = a_line("fits", body=b"one " * 100)
    a_lane(token_limit=estimates([fits])[0].tokens)

    many, few = take(a_line("many", body=b"one " * 130), fits)

    assert many.code == "validation_error"
    assert few.is_new


@pytest.mark.parametrize("endpoint", sorted(OpenAI.limits.endpoints))
def test_the_size_of_a_line_is_never_underestimated(endpoint):
    body = b'{"model":"m"}'

    written = render_line(custom_id="req_" + "0" * 32, endpoint=endpoint, body=body)

    assert len(written) <= line_bytes(endpoint, body) <= len(written) + 16


def test_a_destination_is_made_on_first_use_and_then_shared():
    take(a_line(delivery=TO_A_WEBHOOK), a_line(delivery=TO_A_WEBHOOK))
    take(a_line(delivery=TO_A_WEBHOOK))

    destination = Destination.objects.get()
    assert destination.url == TO_A_WEBHOOK.url
    assert destination.secret.startswith("whsec_")
    assert set(Request.objects.values_list("destination", flat=True)) == {destination.pk}


def test_a_client_that_pulls_has_no_destination():
    take(a_line(), a_line(delivery=Delivery(type="none")))

    assert set(Request.objects.values_list("destination", flat=True)) == {None}


def test_a_named_destination_is_found_within_its_project_only():
    mine = a_destination(name="mine")
    a_destination(name="theirs", project=a_project("other"))

    found, missing = take(
        a_line(delivery=Delivery(type="destination", name="mine")),
        a_line(delivery=Delivery(type="destination", name="theirs")),
    )

    assert Request.objects.get(key=found.key).destination == mine
    assert (missing.code, missing.pointer) == ("unknown_destination", "/delivery_config/name")


def test_an_account_may_be_named_if_it_is_enabled_and_ours():
    named = an_account("named")
    an_account("foreign", project=a_project("other"))
    an_account("off", is_enabled=False)

    found, *missing = take(*(a_line(account=name) for name in ("named", "foreign", "off")))

    assert Request.objects.get(key=found.key).lane.account == named
    assert {m.code for m in missing} == {"unknown_account"}


def test_a_projects_own_account_is_taken_before_a_shared_one():
    own = an_account("own", project=a_project())

    take(a_line())

    assert Lane.objects.get().account == own


def test_without_an_account_nothing_is_taken(account):
    account.is_enabled = False
    account.save()

    (answer,) = take(a_line())

    assert (answer.code, answer.pointer) == ("no_account", "/url")
    assert not Request.objects.exists()


def test_a_chunk_is_one_transaction(monkeypatch):
    def crash(*_args, **_kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr("batching.intake._matched", crash)
    with pytest.raises(RuntimeError):
        take(a_line(), a_line())

    assert not Request.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_eight_clients_that_send_the_same_lines_at_once_get_the_same_requests():
    project, lines = a_project(), [a_line(f"id-{n}", delivery=TO_A_WEBHOOK) for n in range(40)]

    def send(place):
        return accept(project, lines if place % 2 else lines[::-1], now=NOW)

    answers = in_threads(8, send)

    keys = {frozenset(a.key for a in chunk) for chunk in answers}
    assert len(keys) == 1
    assert Request.objects.count() == RequestBody.objects.count() == 40
    assert sum(a.is_new for chunk in answers for a in chunk) == 40
    assert Destination.objects.count() == Lane.objects.count() == 1
