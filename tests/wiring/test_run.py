"""`python manage.py run` with its real children, from an empty folder with a space in its name."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wiring.processes import ROOT, environment, run_manage, wait_for

MANAGE = str(ROOT / "manage.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Run:
    """One start of everything, its log and its processes."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self.env = environment(data_dir, PORT=str(self.port), BATCHER_SANDBOX_PORT=str(free_port()))
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, MANAGE, "run"], env=self.env, stdout=out, stderr=subprocess.STDOUT
            )

    def text(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> None:
        wait_for(
            lambda: "Stop with Ctrl-C" in self.text() or self.process.poll() is not None,
            timeout_s=45,
            what="the greeting",
        )
        assert self.process.poll() is None, self.text()

    def children(self) -> dict[str, int]:
        """Return the pid of each child by what its command line holds."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        words = {"web": "granian", "worker": " worker ", "clock": " beat ", "sandbox": "-m sandbox"}
        return {
            name: int(line.split()[0])
            for line in listed.splitlines()
            for name, word in words.items()
            if word in line
        }

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=15)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "data"


@pytest.fixture
def run(data_dir: Path, tmp_path: Path) -> Iterator[Run]:
    started = Run(data_dir, tmp_path / "log")
    yield started
    started.stop()


@pytest.mark.slow
def test_everything_starts_survives_a_killed_worker_and_stops_within_ten_seconds(run: Run):
    run.wait_until_up()
    parts = {"web", "worker", "clock", "sandbox"}
    wait_for(lambda: set(run.children()) == parts, timeout_s=15, what="all four parts")
    children = run.children()
    assert status(f"http://127.0.0.1:{run.port}/admin/login/") == 200

    os.kill(children["worker"], signal.SIGKILL)
    wait_for(
        lambda: run.children().get("worker", children["worker"]) != children["worker"],
        timeout_s=15,
        what="another worker",
    )

    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=12) == 0
    assert time.monotonic() - began < 10
    assert run.children() == {}
    assert "Traceback" not in run.text()


@pytest.mark.slow
def test_credentials_are_printed_at_the_first_start_only(run: Run, data_dir: Path, tmp_path: Path):
    run.wait_until_up()
    run.stop()
    second = Run(data_dir, tmp_path / "second.log")
    try:
        second.wait_until_up()

        assert re.search(r"(?i)password", run.text())
        assert re.search(r"(?i)api key", run.text())
        assert len(greeting(second.text())) < len(greeting(run.text()))
    finally:
        second.stop()


@pytest.mark.slow
def test_a_second_start_on_the_same_data_is_refused_with_one_line(run: Run):
    run.wait_until_up()

    second = run_manage("run", env=run.env | {"PORT": str(free_port())})

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "is already being served by another start" in second.stderr


def test_a_port_in_use_is_one_line(data_dir: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused = run_manage("run", env=environment(data_dir, PORT=str(port)))

    assert refused.returncode == 1
    assert (
        refused.stderr == f"batcher: PORT {port} is in use on 127.0.0.1; set PORT to a free one\n"
    )


def test_a_database_that_does_not_answer_is_one_line_without_its_password(data_dir: Path):
    url = "postgresql://me:hush@127.0.0.1:9/none"

    refused = run_manage(
        "run",
        env=environment(data_dir, PORT=str(free_port()), DATABASE_URL=url, OPENAI_API_KEY="x"),
    )

    assert refused.returncode == 1
    assert refused.stderr.startswith("batcher: DATABASE_URL can not be connected to: ")
    assert refused.stderr.count("\n") == 1
    assert "hush" not in refused.stderr


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status


def greeting(log: str) -> str:
    return log[log.index("Batcher is at") : log.index("Stop with Ctrl-C")]
