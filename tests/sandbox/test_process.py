"""The sandbox as a process: keys, restarts, flat memory, and how it starts and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from tests.sandbox.driving import CHAT, Driver, chat_line, chat_lines, until
from tests.sandbox_process import ROOT, SandboxProcess


def connect(sandbox: SandboxProcess, api_key: str = "any") -> OpenAI:
    return OpenAI(base_url=sandbox.base_url, api_key=api_key, max_retries=0, timeout=20)


def test_a_given_key_is_the_only_one_taken(tmp_path):
    with SandboxProcess.start(tmp_path, api_key="sk-right") as sandbox:
        with connect(sandbox, "sk-right") as client:
            assert client.batches.list().data == []
        with connect(sandbox, "sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.batches.list()
            sandbox.api_key = "sk-wrong"
            with pytest.raises(Exception, match="401"):
                sandbox.stats()

    assert caught.value.code == "invalid_api_key"
    assert "sk-wrong" not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_batches_in_flight_survive_a_restart(tmp_path, how):
    scenario = {
        "durations": {"in_progress_s": 0.5},
        "rules": [{"fault": "fail_line", "match": {"line": 1}, "times": 1}],
    }
    with SandboxProcess.start(tmp_path, scenario=scenario) as sandbox, connect(sandbox) as client:
        drive = Driver(client)
        before = drive.run(chat_lines(3))
        running = drive.create(chat_lines(3000), metadata={"run": "1"})
        getattr(sandbox, how)()
        sandbox.restart()

        batch = drive.end(running)
        assert (batch.status, batch.metadata) == ("completed", {"run": "1"})
        assert len(drive.answers(batch)) == 3000
        assert drive.client.batches.retrieve(before.id) == before
        assert before.request_counts.failed == 1
        assert sandbox.stats()["lines"]["by_outcome"] == {"answered": 3002, "failed": 1}


@pytest.mark.slow
def test_work_cut_short_comes_out_as_if_it_had_not_been(tmp_path):
    def output(folder: Path, *, is_cut: bool) -> list[str]:
        with SandboxProcess.start(folder, seed=3) as sandbox:
            with connect(sandbox) as client:
                batch = Driver(client).create(chat_lines(20_000))
            if is_cut:
                files = folder / "state" / "files"
                until(lambda: len(list(files.iterdir())) > 1)  # the input's, and one being written
                sandbox.kill()
                sandbox.restart()
            with connect(sandbox) as client:  # kept connections ended with the process
                drive = Driver(client)
                rows = drive.rows(drive.end(batch).output_file_id)
            return [(row["custom_id"], row["response"]["body"]["choices"]) for row in rows]

    assert output(tmp_path / "cut", is_cut=True) == output(tmp_path / "whole", is_cut=False)


def test_a_scenario_stays_over_a_restart_until_another_is_given(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox:
        sandbox.set_scenario("expired")
        sandbox.restart()
        kept = sandbox.control("GET", "/sandbox/scenario")["rules"]
    with SandboxProcess.start(tmp_path, scenario="cancelled") as sandbox:
        given = sandbox.control("GET", "/sandbox/scenario")["rules"]

    assert [rule["fault"] for rule in kept + given] == ["expire", "cancel_by_provider"]


def test_the_clock_never_goes_back_over_a_restart(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox:
        sandbox.advance_clock(100_000)
        before = sandbox.control("GET", "/sandbox/clock")["now"]
        sandbox.restart()

        assert sandbox.control("GET", "/sandbox/clock")["now"] >= before


@pytest.mark.slow
def test_memory_stays_flat_whatever_the_batch(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox, connect(sandbox) as client:
        drive = Driver(client)
        drive.run(chat_lines(5))
        before = resident_bytes(sandbox.pid)
        lines = [chat_line(f"row-{n}", f"{n} " + "x" * 8_000) for n in range(5_000)]

        batch = drive.run(lines)

        size = client.files.retrieve(batch.input_file_id).bytes
        assert batch.request_counts.completed == 5_000
        assert size > 40_000_000
        assert resident_bytes(sandbox.pid) - before < size / 2


def resident_bytes(pid: int) -> int:
    """Return the most memory that a process ever held."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which is not here")
    peak = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


@pytest.mark.slow
def test_calls_are_answered_while_a_big_batch_is_worked_on(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox, connect(sandbox) as client:
        drive = Driver(client)
        batch = drive.create(chat_lines(20_000))
        part = tmp_path / "state" / "files" / f"{batch.id}.output.part"
        until(part.exists)

        client.with_options(timeout=2).batches.list()

        assert part.exists()
        assert drive.end(batch).status == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_two_seconds_in_the_middle_of_work(tmp_path, number):
    sandbox = SandboxProcess.start(tmp_path)
    sandbox.set_scenario({"rules": [{"fault": "hang", "match": {"route": "batches.list"}}]})
    with connect(sandbox) as client:
        Driver(client).create(chat_lines(20_000))
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).batches.list()

        started = time.monotonic()
        os.kill(sandbox.pid, number)

        assert sandbox.stop() == 0
    assert time.monotonic() - started < 2
    assert sandbox.errors() == ""


def run_once(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False, **options
    )


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_once("--port", str(port), "--data", str(tmp_path))

    assert ended.returncode == 1
    assert ended.stderr == f"sandbox: can't listen on 127.0.0.1:{port}: the port is in use\n"


def test_a_data_folder_that_can_not_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")

    ended = run_once("--port", "0", "--data", str(tmp_path / "file" / "sub"))

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"sandbox: can't use data folder {tmp_path}/file/sub: ")
    assert ended.stderr.count("\n") == 1


def test_a_data_folder_in_use_is_one_clear_line(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox:
        ended = run_once("--port", "0", "--data", str(sandbox.data_dir / "state"))

    assert ended.returncode == 1
    assert "another sandbox works in it" in ended.stderr


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ('{"rules": [{"fault": "expier"}]}', "Invalid value 'expier' - at `$.rules[0].fault`"),
        ("{", "Input data was truncated"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_one_clear_line(tmp_path, scenario, message):
    path = tmp_path / "scenario.json"
    path.write_text(scenario)

    ended = run_once("--port", "0", "--data", str(tmp_path / "state"), "--scenario", str(path))

    assert ended.returncode == 1
    assert ended.stderr == f"sandbox: scenario {path}: {message}\n"


def test_it_imports_nothing_of_ours_and_no_django():
    code = (
        "import sys, sandbox.cli;"
        "print([name for name in sys.modules"
        " if name.split('.')[0] in ('batcher', 'batching', 'delivery', 'django', 'celery')])"
    )

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           timeout=20, check=True)  # fmt: skip

    assert ended.stdout == "[]\n"


def test_a_batch_completes_within_seconds_at_normal_speed(tmp_path):
    with SandboxProcess.start(tmp_path) as sandbox, connect(sandbox) as client:
        drive = Driver(client)
        batch = client.batches.create(
            input_file_id=drive.upload(chat_lines(1)), endpoint=CHAT, completion_window="24h"
        )

        assert drive.end(batch).completed_at - batch.created_at <= 2
