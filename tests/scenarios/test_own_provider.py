"""With a provider key in the environment, Batcher talks to that server and starts no sandbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batching.bootstrap import bootstrap
from batching.models import Account, ApiKey
from tests.sandbox_process import SandboxProcess
from tests.scenarios.client import Client, path_of
from tests.wiring.processes import ROOT, environment, running, wait_for
from tests.wiring.test_run import free_port

OUR_KEY = "k" * 40


@pytest.fixture(scope="module")
def their_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """Return a server that speaks OpenAI's API and takes one key only."""
    folder = tmp_path_factory.mktemp("theirs")
    with SandboxProcess.start(folder, speed=20, api_key="sk-theirs") as server:
        yield server


@pytest.fixture
def bootstrapped(their_server, transactional_db, settings):
    """Start as a process with these variables would: the accounts are written."""
    settings.OPENAI_API_KEY = "sk-theirs"
    settings.OPENAI_BASE_URL = their_server.base_url
    settings.BATCHER_POLL_SECONDS = 1
    bootstrap(sandbox_url=None)


@pytest.mark.usefixtures("bootstrapped")
def test_the_account_of_the_environment_is_used(their_server, road, live_server):
    key = ApiKey.issue(ApiKey.objects.get().project, "client")[1]

    with Client(live_server.url, key) as api:
        api.taken("own")
        road.run()

        assert path_of(api.only_batch())[-1] == "delivered"
        assert api.request("own")["account"] == "openai"
    stats = their_server.stats()
    assert stats["batches"]["created"] == 1
    assert "401" not in stats["calls"]["batches.create"]


@pytest.mark.usefixtures("bootstrapped")
def test_another_key_or_server_takes_effect_at_the_next_start(settings):
    settings.OPENAI_API_KEY = "sk-changed"
    settings.OPENAI_BASE_URL = "http://127.0.0.1:9/v1"

    bootstrap(sandbox_url=None)

    (account,) = Account.objects.filter(is_enabled=True)
    assert (account.name, account.api_key) == ("openai", "sk-changed")
    assert account.base_url == "http://127.0.0.1:9/v1"


@pytest.mark.usefixtures("bootstrapped")
def test_the_account_of_a_sandbox_that_no_longer_runs_is_switched_off():
    bootstrap(sandbox_url="http://127.0.0.1:8001/v1")
    assert Account.objects.get(name="sandbox").is_enabled

    bootstrap(sandbox_url=None)

    assert not Account.objects.get(name="sandbox").is_enabled


@pytest.mark.slow
def test_run_serves_from_that_server_and_starts_no_sandbox(their_server, tmp_path: Path):
    before = their_server.stats()["batches"]["created"]

    with served(their_server, tmp_path) as (process, api):
        api.taken("real", "What is it all for?")
        results = api.results(wait_s=30)
        listed = children(process.pid)

    assert [(r["custom_id"], r["outcome"]) for r in results] == [("real", "succeeded")]
    assert their_server.stats()["batches"]["created"] == before + 1
    assert sorted(name for name in ("granian", " worker ", " beat ") if name in listed) == [
        *(" beat ", " worker ", "granian")
    ]
    assert "-m sandbox" not in listed
    assert "sandbox" not in (tmp_path / "log").read_text()


@contextmanager
def served(
    server: SandboxProcess, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """Run everything with a provider's key in the environment, and a client of it."""
    port = free_port()
    env = environment(
        folder / "data",
        PORT=str(port),
        OPENAI_API_KEY="sk-theirs",
        OPENAI_BASE_URL=server.base_url,
        BATCHER_BOOTSTRAP_API_KEY=OUR_KEY,
        BATCHER_POLL_SECONDS="1",
    )
    log = folder / "log"
    with running(str(ROOT / "manage.py"), "run", env=env, log=log) as process:
        wait_for(
            lambda: "Stop with Ctrl-C" in log.read_text() or process.poll() is not None,
            timeout_s=45,
            what="the greeting",
        )
        assert process.poll() is None, log.read_text()
        try:
            with Client(f"http://127.0.0.1:{port}", OUR_KEY) as api:
                yield process, api
        finally:
            sys.stderr.write(log.read_text())  # shown when the test fails


def children(pid: int) -> str:
    """Return the command lines of a process's children."""
    command = ["ps", "-ww", "-o", "args=", "--ppid", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
