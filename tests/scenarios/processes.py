"""Processes of ours on this test's own database: a worker that can be killed, the real web server, the intake."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import requests
from django.conf import settings
from django.db import connection

from batcher import processes
from tests.wiring.processes import ROOT, environment, running, wait_for
from tests.wiring.test_run import free_port

_TAKE = """
import sys
import django
django.setup()
from django.utils import timezone
from tests.scenarios.road import PHASES
for name in sys.argv[1:]:
    PHASES[name](timezone.now())
"""


@contextmanager
def worker_taking(*phases: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the phases once in another process; it is killed at the end of the block at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE, *phases],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def web_server(
    log: Path, *, threads: int = 16, waiters: int = 32, **settings_: str
) -> Iterator[str]:
    """Serve as `manage.py run` does, and yield the URL; the server is killed at the end of the block.

    More words are variables of its environment.
    """
    port = free_port()
    served = SimpleNamespace(
        BATCHER_HOST="127.0.0.1", PORT=port, BATCHER_WEB_PROCESSES=1, BATCHER_WEB_THREADS=threads,
        BATCHER_WAITERS=waiters,
    )  # fmt: skip
    _, *arguments = processes.web(served)
    env = _environment(BATCHER_WEB_THREADS=str(threads), BATCHER_WAITERS=str(waiters), **settings_)
    with running(*arguments, env=env, log=log):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url), timeout_s=20, what=f"the web server: {log}")
        yield url


@contextmanager
def intake(log: Path, broker_url: str, queue: str) -> Iterator[subprocess.Popen[bytes]]:
    """Take requests from a queue as `manage.py run intake` does, for the length of the block."""
    env = _environment(RABBITMQ_URL=broker_url, RABBITMQ_INPUT_QUEUE=queue)
    with running(str(ROOT / "manage.py"), "run", "intake", env=env, log=log) as process:
        yield process


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=1).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def _environment(**more: str) -> dict[str, str]:
    return environment(settings.DATA_DIR, DATABASE_URL=_url_of_this_database(), **more)


def _url_of_this_database() -> str:
    is_ = {name: str(value or "") for name, value in connection.settings_dict.items()}
    if connection.vendor == "sqlite":
        return f"sqlite:///{is_['NAME']}"
    who = quote(is_["USER"]) + (f":{quote(is_['PASSWORD'], safe='')}" if is_["PASSWORD"] else "")
    return f"postgresql://{who}@{is_['HOST']}:{is_['PORT'] or 5432}/{is_['NAME']}"
