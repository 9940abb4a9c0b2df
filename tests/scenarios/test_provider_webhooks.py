"""The provider tells that a batch ended: its results are there long before the next look was due."""

from __future__ import annotations

import pytest

from batching.models import Account, Notice
from delivery.signing import new_secret
from tests.sandbox.driving import until
from tests.scenarios.provider import misbehave
from tests.scenarios.road import TO_THE_PROVIDER


@pytest.fixture
def secret(account):
    made = new_secret()
    Account.objects.update(webhook_secret=made, poll_seconds=3_600)
    return made


def test_an_ended_batch_is_fetched_at_once(api, road, provider, live_server, secret):
    hook = {"url": f"{live_server.url}/hooks/openai", "secret": secret, "times": 2}
    misbehave(provider, webhook=hook)
    api.taken("x")
    road.until(lambda: bool(api.batches(state="processing")), by=TO_THE_PROVIDER)

    until(Notice.objects.exists)
    road.run()

    assert api.states() == {"x": "processed"}
    assert Notice.objects.count() == 1
