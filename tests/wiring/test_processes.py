"""Which parts one host runs, and what each part is told when it can't run."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher import processes
from tests.wiring.processes import environment, run_manage

URL = "amqp://guest:guest@127.0.0.1:9/"


@pytest.mark.parametrize(
    ("url", "queue", "has_intake"),
    [("", "", False), (URL, "", False), ("", "in", False), (URL, "in", True)],
    ids=["neither", "no-queue", "no-server", "both"],
)
def test_the_intake_runs_when_server_and_queue_are_named(settings, url, queue, has_intake):
    settings.RABBITMQ_URL, settings.RABBITMQ_INPUT_QUEUE = url, queue

    parts = processes.parts_together(settings)

    assert {"web", "worker", "clock"} <= set(parts)
    assert ("intake" in parts) == has_intake


def test_an_intake_without_a_queue_is_one_line(tmp_path: Path):
    refused = run_manage("run", "intake", env=environment(tmp_path, RABBITMQ_URL=URL))

    assert refused.returncode == 1
    assert refused.stderr == (
        "CommandError: set RABBITMQ_URL and RABBITMQ_INPUT_QUEUE to take requests from it\n"
    )
