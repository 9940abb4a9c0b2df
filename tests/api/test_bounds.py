"""Bodies over their bound, at every door: 413 in its words, before much was read, and nothing left behind."""

from __future__ import annotations

import json

import pytest
from django.test import RequestFactory
from django.urls import resolve

from batching.api import reading
from batching.api.anthropic import batch_views as message_views
from batching.api.openai import file_views
from batching.models import ApiKey, ClientFile, Request, Submission

BOUND = 100_000
FORM = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
DOORS = {
    "request": ("/api/requests", "application/json", b'{"custom_id":"'),
    "bulk": ("/api/requests/bulk", "application/x-ndjson", b'{"custom_id":"'),
    "file": ("/v1/files", "multipart/form-data; boundary=cut", FORM),
    "batch": ("/v1/batches", "application/json", b'{"endpoint":"'),
    "messages": ("/v1/messages/batches", "application/json", b'{"requests":[{"custom_id":"'),
    "call": ("/v1/responses", "application/json", b'{"model":"'),
}


class Endless:
    """A body that never ends; counts what was read of it."""

    def __init__(self, beginning):
        self._beginning, self.given = beginning, 0

    def read(self, size=-1):
        piece = (self._beginning or b"x" * 10_000)[:size]
        self._beginning = self._beginning[size:]
        self.given += len(piece)
        return piece


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    for place, name in (
        (reading, "MAX_BODY_BYTES"),
        (reading, "MAX_UPLOAD_BYTES"),
        (file_views, "MAX_UPLOAD_BYTES"),
        (message_views, "MAX_BODY_BYTES"),
    ):
        monkeypatch.setattr(place, name, BOUND)


@pytest.fixture
def sent(project):
    """Return a function that sends an endless body to a door; it returns the answer and what was read."""
    _, secret = ApiKey.issue(project, "k")

    def send(door, **headers):
        path, kind, beginning = DOORS[door]
        headers = {"Authorization": f"Bearer {secret}", **headers}
        request = RequestFactory().generic("POST", path, b"x", kind, headers=headers)
        if "Content-Length" not in headers:
            request.META.pop("CONTENT_LENGTH", None)
        body = request.META["wsgi.input"] = Endless(beginning)
        found = resolve(path)
        return found.func(request, **found.kwargs), body.given

    return send


def refused(door, answer):
    """Return whether that is a 413 in the door's own words."""
    told = json.loads(answer.content)
    if door in ("request", "bulk"):
        return (answer.status_code, told["errors"][0]["code"]) == (413, "payload_too_large")
    words = told["error"]
    kind = "request_too_large" if door == "messages" else "invalid_request_error"
    return (answer.status_code, words["type"]) == (413, kind)


@pytest.mark.parametrize("door", DOORS)
def test_a_chunked_body_is_read_to_its_bound_and_no_further(sent, door):
    answer, read = sent(door, **{"Transfer-Encoding": "chunked"})

    assert refused(door, answer), answer.content
    assert read <= BOUND + 2 * reading._PIECE
    rows = (Request, Submission, ClientFile)
    assert not any(model.objects.exists() for model in rows)


@pytest.mark.parametrize("door", [door for door in DOORS if door != "file"])
def test_an_announced_body_is_refused_unread(sent, door):
    answer, read = sent(door, **{"Content-Length": "1000000000"})

    assert refused(door, answer), answer.content
    assert read == 0
