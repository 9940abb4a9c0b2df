"""One call, one request, at the real web server: restarts, and calls that wait beside others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests

from batching.models import ApiKey, Project, Request
from tests.front_door.test_one_call import AT_ONCE, SAY_HI
from tests.scenarios.processes import web_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def sdk_at(account):
    """Return a function that makes a client of one API key at a URL."""
    _, secret = ApiKey.issue(Project.objects.create(name="served"), "door")

    def make(url):
        return openai.OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0, timeout=60)

    return make


def chat(sdk, **headers):
    headers = {**AT_ONCE, "Prefer": "wait=60", **headers}
    return sdk.chat.completions.create(**SAY_HI, extra_headers=headers)


def until(question):
    pause = threading.Event()
    while not question():
        pause.wait(0.05)


@pytest.mark.parametrize(
    "repeat", [{"Idempotency-Key": "k"}, {"X-Stainless-Retry-Count": "1"}], ids=["key", "marker"]
)
def test_call_cut_off_by_a_restart_is_answered_when_it_comes_again(sdk_at, road, tmp_path, repeat):
    first = {name: value for name, value in repeat.items() if name == "Idempotency-Key"}
    with ThreadPoolExecutor(1) as pool:
        with web_server(tmp_path / "first") as url:
            lost = pool.submit(chat, sdk_at(url), **first)
            until(Request.objects.exists)
        with pytest.raises(openai.APIConnectionError):
            lost.result()
        with web_server(tmp_path / "second") as url:
            again = pool.submit(chat, sdk_at(url), **repeat)
            road.until(again.done)

    assert again.result().choices[0].message.content
    assert Request.objects.count() == 1


def test_calls_that_wait_leave_every_other_call_its_thread(sdk_at, road, tmp_path):
    server = web_server(
        tmp_path / "log", threads=1, waiters=8, BATCHER_WAITERS_PER_KEY_PERCENT="100"
    )
    with ThreadPoolExecutor(8) as pool, server as url:
        sdk = sdk_at(url)
        calls = [pool.submit(chat, sdk) for _ in range(8)]
        until(lambda: Request.objects.count() == 8)

        with pytest.raises(openai.RateLimitError, match="8 calls wait"):
            chat(sdk)
        assert all(requests.get(f"{url}/health", timeout=5).ok for _ in range(5))
        assert sdk.models.list().data
        road.until(lambda: all(call.done() for call in calls))

    assert all(call.result().choices for call in calls)
