"""The broker in a folder: nothing is lost between processes, and only one worker takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection

from batcher import embedded_broker, processes
from batcher.schedule import WorkQueue
from tests.wiring.processes import ROOT, environment, running, wait_for

WORKER = [*processes.worker(configured)[1:], "--include=tests.wiring.bell"]
SENDERS, EACH = 3, 168


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "broker"


def connect(folder: Path) -> Connection:
    return Connection("embedded://localhost", transport_options={"folder": str(folder)})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_messages_come_out_in_the_order_they_went_in(folder: Path):
    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        for number in range(20):
            queue.put({"number": number})

        taken = [queue.get(timeout=1) for _ in range(20)]

        assert [message.payload["number"] for message in taken] == list(range(20))


def test_a_message_stays_on_disk_until_it_is_acknowledged(folder: Path):
    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        queue.put({"number": 1})
        message = queue.get(timeout=1)
        assert len(files(folder)) == 1

        message.ack()

        assert files(folder) == []


def test_what_was_not_acknowledged_goes_back_when_the_connection_closes(folder: Path):
    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        queue.put({"number": 1})
        queue.get(timeout=1)

    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        assert queue.get(timeout=1).payload == {"number": 1}


def test_what_a_killed_worker_had_claimed_goes_back_when_the_next_one_starts(folder: Path):
    claimed = folder / "claimed" / "bells"
    claimed.mkdir(parents=True)
    (claimed / "1.tag").write_text("{}")

    embedded_broker.hold_worker_lock(folder)

    assert files(folder) == ["bells/1.tag", "worker.lock"]


def test_a_half_written_message_is_never_taken(folder: Path):
    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        queue.put({"number": 1})
        (folder / "drafts" / "0.half").write_text('{"bo')

        assert queue.get(timeout=1).payload == {"number": 1}
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.1)


def test_the_lock_is_for_one_worker_only(folder: Path):
    embedded_broker.hold_worker_lock(folder)

    with pytest.raises(ImproperlyConfigured, match="set CELERY_BROKER_URL"):
        embedded_broker.hold_worker_lock(folder)


@pytest.mark.slow
def test_one_worker_takes_all_messages_of_many_senders_from_all_queues(tmp_path: Path):
    book = tmp_path / "book"
    env = environment(tmp_path, BELL_FILE=str(book))
    with running(*WORKER, env=env, log=tmp_path / "worker.log"):
        ring_from_many_processes(env)

        wait_for(lambda: len(lines(book)) >= SENDERS * EACH, timeout_s=60, what="all were rung")

    rung = lines(book)
    assert len(set(rung)) == len(rung) == SENDERS * EACH
    assert {line.split("-")[-1] for line in rung} == {queue.value for queue in WorkQueue}
    assert (tmp_path / "worker.log").read_text().count("Traceback") == 0


@pytest.mark.slow
def test_a_second_worker_is_refused_with_one_line(tmp_path: Path):
    env = environment(tmp_path, BELL_FILE=str(tmp_path / "book"))
    with running(*WORKER, env=env, log=tmp_path / "first.log"):
        lock = tmp_path / "broker" / "worker.lock"
        wait_for(lock.exists, timeout_s=20, what="the first worker holds its lock")

        second = subprocess.run(
            [sys.executable, *WORKER], env=env, capture_output=True, text=True, timeout=30
        )

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "another worker uses the embedded broker" in second.stderr


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: Path):
    book = tmp_path / "book"
    env = environment(tmp_path, BELL_FILE=str(book))
    ring_from_many_processes(env)
    with running(*WORKER, env=env, log=tmp_path / "first.log") as first:
        wait_for(lambda: len(lines(book)) > 20, timeout_s=30, what="the first worker works")
        first.send_signal(signal.SIGKILL)
        first.wait()

    with running(*WORKER, env=env, log=tmp_path / "second.log"):
        wait_for(
            lambda: len(set(lines(book))) >= SENDERS * EACH, timeout_s=60, what="all were rung"
        )


def ring_from_many_processes(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.wiring.bell"]
    senders = [
        subprocess.Popen([*command, f"sender{number}", str(EACH)], env=env, cwd=ROOT)
        for number in range(SENDERS)
    ]
    assert [sender.wait(timeout=60) for sender in senders] == [0] * SENDERS


def lines(book: Path) -> list[str]:
    return book.read_text().splitlines() if book.exists() else []


def test_a_message_file_is_readable_json(folder: Path):
    with connect(folder) as connection, connection.SimpleQueue("bells") as queue:
        queue.put({"number": 1})

        (path,) = (folder / "bells").iterdir()

        assert json.loads(path.read_text())["content-type"] == "application/json"
