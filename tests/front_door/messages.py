"""The official anthropic SDK, unchanged, at a Batcher whose provider is the sandbox's Anthropic side."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from batching.models import Account
from tests.front_door.clients import clients

HAIKU = "claude-haiku-4-5"


def ask(custom_id: str, text: str = "Hi", *, model: str = HAIKU, **more) -> dict:
    """Return one request, as Anthropic documents it."""
    params = {
        "model": model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
    }
    return {"custom_id": custom_id, "params": params, **more}


class MessageDoor:
    """A client of one project."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.sdk = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=30)
        self.batches = self.sdk.messages.batches

    def create(self, *requests, **how):
        return self.batches.create(requests=list(requests), **how)

    def results(self, batch) -> list:
        return list(self.batches.results(batch.id))

    def ends(self, batch) -> dict[str, str]:
        """Return how each request ended."""
        return {one.custom_id: one.result.type for one in self.results(batch)}


@pytest.fixture
def message_account(transactional_db, provider) -> Account:
    """Return an account at the sandbox's Anthropic side."""
    return Account.objects.create(
        name="messages",
        kind=Account.Kind.SANDBOX_ANTHROPIC,
        base_url=provider.url,
        api_key="any",
        poll_seconds=1,
    )


@pytest.fixture
def message_door_of(message_account, live_server) -> Iterator:
    """Return a function that makes a client of the project with that name."""
    with clients(MessageDoor, live_server.url) as make:
        yield make


@pytest.fixture
def message_door(message_door_of) -> MessageDoor:
    return message_door_of("ours")


@pytest.fixture
def end(road, message_door):
    """Return a function that drives until a batch has ended, and returns it as its client sees it."""

    def drive(batch, *, whose: MessageDoor = message_door, timeout_s: float = 30):
        road.step("read")
        road.later(seconds=61)
        road.until(
            lambda: whose.batches.retrieve(batch.id).processing_status == "ended",
            timeout_s=timeout_s,
        )
        return whose.batches.retrieve(batch.id)

    return drive
