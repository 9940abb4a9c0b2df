"""A server with something in it: rows in many states, and a key that may do everything."""

from __future__ import annotations

import pytest
from django.utils import timezone

from batching.api import memory, pace
from batching.lifecycle import BatchState, RequestState
from batching.models import ApiKey, Pulse, Submission
from tests.batching.rows import a_batch, a_destination, a_project, a_request, an_account, an_answer

SETTLED = {
    RequestState.PROCESSED,
    RequestState.DELIVERED,
    RequestState.DELIVERY_FAILED,
    RequestState.FAILED,
}


@pytest.fixture
def server(transactional_db, live_server, settings) -> str:
    """Return the URL of a server that has a batch in each state and a request in each."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    memory.forget_all()
    pace.forget()
    Pulse.objects.create(name="packing", began_at=timezone.now())
    an_account()
    a_destination(name="crm", url="http://127.0.0.1:9/")
    submission = Submission.objects.create(project=a_project(), finished_at=timezone.now())
    for state in BatchState:
        a_request(batch=a_batch(state=state), state=_state_in(state), submission=submission)
    for state in RequestState:
        settled_at = timezone.now() if state in SETTLED else None
        an_answer(a_request(state=state, submission=submission, settled_at=settled_at))
    yield live_server.url
    memory.forget_all()


def _state_in(state: str) -> str:
    return RequestState.PENDING if state == BatchState.BUILDING else RequestState.PROCESSING


@pytest.fixture
def key(server) -> str:
    return ApiKey.issue(a_project(), "asking")[1]
