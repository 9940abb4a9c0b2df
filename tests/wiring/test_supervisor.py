"""Children live together, are started again, and end together, whatever happens to whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.wiring.processes import ROOT, environment, wait_for

SLEEPER = "import os, time; print('pid', os.getpid()); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


class Kept:
    """A running supervisor, what it wrote, and who its children were."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self.process = process
        self.log = log

    def lines(self, name: str) -> list[str]:
        parts = [line.split(" | ", 1) for line in self.log.read_text().splitlines()]
        return [text for child, text in parts if child.strip() == name]

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[1]) for line in self.lines(name) if line.startswith("pid ")]

    def wait_for_start(self, name: str, times: int = 1) -> int:
        wait_for(
            lambda: len(self.pids(name)) >= times,
            timeout_s=15,
            what=f"{name} started {times} times",
        )
        return self.pids(name)[-1]


@contextmanager
def kept(tmp_path: Path, **code: str) -> Iterator[Kept]:
    commands = {name: [sys.executable, "-u", "-c", text] for name, text in code.items()}
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.wiring.keep", json.dumps(commands)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(tmp_path),
            cwd=ROOT,
        )
    try:
        yield Kept(process, log)
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_killed_child_is_started_again_and_the_log_says_so(tmp_path: Path):
    with kept(tmp_path, worker=SLEEPER, web=SLEEPER) as supervisor:
        first = supervisor.wait_for_start("worker")
        os.kill(first, signal.SIGKILL)

        second = supervisor.wait_for_start("worker", times=2)

        assert second != first
        assert (
            "worker ended by SIGKILL; it is started again in 0.5 s"
            in supervisor.lines("batcher")[0]
        )
        assert len(supervisor.pids("web")) == 1


def test_a_child_that_dies_too_often_takes_all_down_with_a_clear_message(tmp_path: Path):
    with kept(tmp_path, worker="raise SystemExit(3)", web=SLEEPER) as supervisor:
        web = supervisor.wait_for_start("web")

        assert supervisor.process.wait(timeout=20) == 1

        last = supervisor.lines("batcher")[-1]
        assert "worker ended with exit code 3, 3 times within 60 s; everything was stopped" in last
        assert is_gone(web)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_children_and_is_no_failure(tmp_path: Path, number: signal.Signals):
    with kept(tmp_path, worker=SLEEPER, web=SLEEPER) as supervisor:
        pids = [supervisor.wait_for_start(name) for name in ("worker", "web")]

        supervisor.process.send_signal(number)

        assert supervisor.process.wait(timeout=60) == 0
        assert all(map(is_gone, pids))


def test_a_child_that_will_not_end_is_killed_after_the_grace(tmp_path: Path):
    with kept(tmp_path, worker=STUBBORN) as supervisor:
        pid = supervisor.wait_for_start("worker")
        started = time.monotonic()

        supervisor.process.send_signal(signal.SIGINT)
        supervisor.process.wait(timeout=60)

        assert 0.9 < time.monotonic() - started < 5
        assert is_gone(pid)


def test_children_of_children_end_too(tmp_path: Path):
    with kept(tmp_path, web=PARENT) as supervisor:
        supervisor.wait_for_start("web", times=2)
        pids = supervisor.pids("web")

        supervisor.process.send_signal(signal.SIGINT)
        supervisor.process.wait(timeout=60)

        wait_for(lambda: all(map(is_gone, pids)), timeout_s=5, what="both are gone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that we died")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path):
    with kept(tmp_path, worker=SLEEPER, web=SLEEPER) as supervisor:
        pids = [supervisor.wait_for_start(name) for name in ("worker", "web")]

        supervisor.process.kill()

        wait_for(lambda: all(map(is_gone, pids)), timeout_s=5, what="the children are gone")
