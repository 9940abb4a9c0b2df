"""The official openai SDK, unchanged, at a Batcher whose provider is the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from batching import clientbatch
from tests.front_door.clients import clients
from tests.front_door.messages import (  # noqa: F401  # fixtures
    end,
    message_account,
    message_door,
    message_door_of,
)
from tests.scenarios import road as roads
from tests.scenarios.fixtures import (  # noqa: F401  # fixtures
    _provider_process,
    account,
    provider,
    receiver,
    road,
)

MINI = "gpt-4o-mini"
ENDPOINT = "/v1/chat/completions"


def line(custom_id: str, text: str = "Hi", *, url: str = ENDPOINT, model: str = MINI, **more):
    """Return one line of a batch file, as OpenAI documents it."""
    content = {"input": text}
    if url == ENDPOINT:
        content = {"messages": [{"role": "user", "content": text}]}
    body = {"model": model, **content}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more}


def jsonl(*lines) -> bytes:
    """Return lines as a file; bytes stand for themselves."""
    return b"".join(
        one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines
    )


def rows(content) -> list[dict]:
    """Return the lines of a downloaded file."""
    return [json.loads(row) for row in content.read().split(b"\n") if row]


class Door:
    """A client of one project, with the few calls that tests make again and again."""

    def __init__(self, url: str, key: str) -> None:
        self.sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30)

    def upload(self, *lines, **how):
        return self.sdk.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch", **how)

    def create(self, *lines, **how):
        """Upload lines and make a batch of them."""
        return self.sdk.batches.create(
            input_file_id=self.upload(*lines).id,
            endpoint=ENDPOINT,
            completion_window="24h",
            **how,
        )

    def batch(self, batch):
        return self.sdk.batches.retrieve(batch.id)

    def output(self, batch) -> list[dict]:
        return rows(self.sdk.files.content(self.batch(batch).output_file_id))

    def errors(self, batch) -> list[dict]:
        return rows(self.sdk.files.content(self.batch(batch).error_file_id))


@pytest.fixture(autouse=True)
def client_batches_on_the_road(monkeypatch):
    monkeypatch.setitem(roads.PHASES, "read", clientbatch.read_due)
    monkeypatch.setitem(roads.PHASES, "watch", clientbatch.watch_due)


@pytest.fixture
def door_of(account, live_server) -> Iterator:  # noqa: F811  # a fixture
    """Return a function that makes a client of the project with that name."""
    with clients(Door, live_server.url) as make:
        yield make


@pytest.fixture
def door(door_of) -> Door:
    return door_of("ours")


@pytest.fixture
def finish(road, door):  # noqa: F811  # a fixture
    """Return a function that drives until a batch has ended, and returns it as its client sees it."""

    def drive(batch, *, whose: Door = door, timeout_s: float = 30):
        road.step("read")
        road.later(seconds=61)
        road.until(
            lambda: whose.batch(batch).status in ("completed", "failed", "cancelled"),
            timeout_s=timeout_s,
        )
        return whose.batch(batch)

    return drive
