"""The Python examples of the doors' pages, run as they stand there, at the real web server."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings

from batching.api import memory
from batching.models import Answer, ApiKey, Project, Request
from tests.delivery.intake_queue import Broker, consuming
from tests.front_door.conftest import jsonl, line
from tests.scenarios.processes import web_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def examples(page: str) -> list[str]:
    text = Path(settings.BASE_DIR, "docs", page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def run_page(account, message_account, road, tmp_path, monkeypatch):
    """Return a function that runs a page's examples, one after another, while everything is driven."""
    _, key = ApiKey.issue(Project.objects.create(name="default"), "examples")
    (tmp_path / "requests.jsonl").write_bytes(
        jsonl(line("a"), line("b", url="/v1/responses", model="gpt-5-mini"))
    )
    monkeypatch.chdir(tmp_path)
    memory.forget_all()

    def run(page: str, *, seconds_a_round: float = 0):
        code = "\n".join(one for one in examples(page) if "pika" not in one)
        code = code.replace("bm_live_…", key).replace("sleep(10)", "sleep(0.05)")
        with web_server(tmp_path / "log") as url, ThreadPoolExecutor(1) as pool:
            code = code.replace("http://127.0.0.1:8000", url)
            ran = pool.submit(exec, compile(code, page, "exec"), {"__name__": page})
            road.until(lambda: ran.done() or road.later(seconds=seconds_a_round), timeout_s=90)
        ran.result()

    return run


def test_requests_are_sent_and_results_pulled_and_leased(run_page, capsys):
    run_page("api.md")

    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["pending", "100 taken; []"]
    assert "invoice-17 succeeded" in said
    assert any(re.fullmatch(r"req_\w+ succeeded", each) for each in said)
    assert Request.objects.count() == 101


def test_openais_sdk_gets_its_output_file(run_page, tmp_path):
    run_page("openai.md", seconds_a_round=2)

    rows = [json.loads(row) for row in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == ["a", "b"]
    assert {row["response"]["status_code"] for row in rows} == {200}


def test_anthropics_sdk_gets_its_results(run_page, capsys):
    run_page("anthropic.md", seconds_a_round=2)

    (said,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"row-1 .+", said)


def test_one_call_is_answered(run_page, capsys):
    run_page("one-call.md", seconds_a_round=1)

    assert len(capsys.readouterr().out.split()) > 1
    assert Answer.objects.count() == Request.objects.count() == 4


@pytest.mark.service
def test_a_request_is_published_and_the_reply_read(account, rabbitmq_url, capsys):
    Project.objects.create(name="default")
    queue = Broker(rabbitmq_url)
    queue.declare()
    (code,) = [one for one in examples("api.md") if "pika" in one]
    code = code.replace("amqp://guest:guest@127.0.0.1:5672/", rabbitmq_url)

    with consuming(queue):
        exec(code.replace("llm.requests", queue.queue), {})  # noqa: S102  # our own page
    queue.close()

    assert capsys.readouterr().out.startswith("order-18 {'accepted': [{'id': 'req_")
    assert Request.objects.get().custom_id == "order-18"
