"""A project with an account, and a client that carries one of its keys."""

from __future__ import annotations

import json

import pytest

from batching.api import memory, pace
from batching.models import Account, ApiKey, Project


class Api:
    """Django's test client with an API key."""

    def __init__(self, client, secret=""):
        self.client = client
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def get(self, path, **headers):
        return self.client.get(path, headers={**self.headers, **headers})

    def post(self, path, body=b"", content_type="application/json", **headers):
        return self.send("POST", path, body, content_type, **headers)

    def send(self, method, path, body=b"", content_type="application/json", **headers):
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.generic(
            method, path, sent, content_type=content_type, headers={**self.headers, **headers}
        )


def new_request(custom_id="r-1", **changes):
    """Return a request as a client sends it."""
    return {
        "custom_id": custom_id,
        "url": "/v1/responses",
        "method": "POST",
        "body": {"model": "gpt-4o-mini", "input": "Hello"},
        "delivery_config": {"type": "none"},
        **changes,
    }


def ndjson(*lines):
    """Return lines as an upload."""
    return b"".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    )


def first_error(answer):
    """Return the first error of a failed call."""
    return answer.json()["errors"][0]


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Keep one test's keys and flags out of the next one's."""
    memory.forget_all()
    pace.forget()
    yield
    memory.forget_all()


@pytest.fixture
def project(db):
    Account.objects.create(name="main", kind=Account.Kind.SANDBOX, base_url="http://127.0.0.1:9/v1")
    return Project.objects.create(name="ours")


@pytest.fixture
def api(client, project):
    return Api(client, ApiKey.issue(project, "test")[1])


@pytest.fixture
def stranger(client, project):
    """A client of another project."""
    return Api(client, ApiKey.issue(Project.objects.create(name="theirs"), "test")[1])


@pytest.fixture
def anonymous(client, db):
    return Api(client)
