"""The same thing sent ten times at once, at every door: one set with a key, as documented without, never a 500."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from batching import clientbatch
from batching.models import ApiKey, Request, Submission
from tests.api import doors
from tests.api.conftest import Api

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

TIMES = 10
ONE = doors.request(doors.of_openai(b""))
TWO = b"\n".join((ONE, doors.request(doors.of_openai(b""), b'"b"')))
MESSAGES = doors.messages(doors.asked(b""), doors.asked(b"", b'"b"'))


@pytest.fixture
def secret(project):
    doors.an_anthropic_account()
    return ApiKey.issue(project, "at once")[1]


def at_once(call):
    """Call ten times at once; return what came of each."""

    def alone(_):
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(TIMES) as pool:
        return list(pool.map(alone, range(TIMES)))


def sending(secret, path, body, **headers):
    def send():
        return Api(Client(), secret).post(path, body, **headers).status_code

    return send


def to(secret, door):
    """Return the path and the body of a door's upload."""
    if door == "batch":
        file_id = doors.upload(Api(Client(), secret), TWO)
        return "/v1/batches", doors.new_batch(file_id)
    return {
        "request": ("/api/requests", ONE),
        "bulk": ("/api/requests/bulk", TWO),
        "messages": ("/v1/messages/batches", MESSAGES),
        "call": ("/v1/responses", doors.of_openai(b"")),
    }[door]


def made():
    """Return how many sets of requests there are, and how many requests in all, once all is read."""
    clientbatch.read_due(timezone.now())
    return Submission.objects.count(), Request.objects.count()


WITH_A_KEY = {
    "request": (0, 1), "bulk": (1, 2), "batch": (1, 2), "messages": (1, 2), "call": (0, 1),
}  # fmt: skip
WITHOUT = {
    "request": (0, 1), "bulk": (10, 2), "batch": (10, 20), "messages": (10, 20), "call": (0, 10),
}  # fmt: skip


@pytest.mark.parametrize("door", WITH_A_KEY)
def test_with_one_key_it_is_done_once(secret, door):
    path, body = to(secret, door)
    headers = {"Idempotency-Key": "k", "Prefer": "respond-async"}

    statuses = at_once(sending(secret, path, body, **headers))

    assert {status for status in statuses if status >= 300} <= {409}
    assert statuses.count(409) < TIMES
    assert made() == WITH_A_KEY[door]


@pytest.mark.parametrize("door", WITHOUT)
def test_without_a_key_ids_decide(secret, door):
    path, body = to(secret, door)

    statuses = at_once(sending(secret, path, body, Prefer="respond-async"))

    assert all(status < 300 for status in statuses), statuses
    assert made() == WITHOUT[door]


def test_messages_of_a_queue_are_one_request(secret):
    verdicts = [verdict for (verdict,) in at_once(lambda: doors.arrive(ONE))]

    assert not any(verdict.faults for verdict in verdicts)
    assert len({verdict.taken[0].id for verdict in verdicts}) == 1
    assert made() == (0, 1)
