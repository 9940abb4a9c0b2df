"""A whole Batcher as its own processes, for a browser to look at: web, worker, clock and sandbox, in a fresh folder.

Used by the browser tests and by ``screenshots``. Rows that tell something (``benchmarks.console_rows``) are made
before it starts and are held: no worker touches them, whatever a test does beside them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.wiring.processes import ROOT, environment, wait_for
from tests.wiring.test_run import free_port

PASSWORD = "the browser's own"
API_KEY = "browser-browser-browser-browser-1"
_PEOPLE = """
import django
django.setup()
from django.contrib.auth.models import Group, User
for name in ("viewer", "operator"):
    person = User.objects.create_user(name, password={password!r}, is_staff=True)
    person.groups.add(Group.objects.get(name=name))
"""


class Panel:
    """One running Batcher."""

    def __init__(self, folder: Path, *, rows: int = 0) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._log = folder / "run.log"
        self._env = environment(
            folder / "data",
            PORT=str(port),
            BATCHER_SANDBOX_PORT=str(free_port()),
            BATCHER_ADMIN_PASSWORD=PASSWORD,
            BATCHER_BOOTSTRAP_API_KEY=API_KEY,
            BATCHER_RETRY_DELAYS="0",
        )
        if rows:
            self._python(
                "-m", "benchmarks.console", "--only-fill", "--held", "--requests", str(rows)
            )
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "run"],
                env=self._env, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for(self._is_up, timeout_s=90, what="the greeting")
        if self._process.poll() is not None:
            raise AssertionError(self._log.read_text())

    def add_people(self) -> None:
        """Make a viewer and an operator, with the same password as the admin."""
        self._python("-c", _PEOPLE.format(password=PASSWORD))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API, and return its JSON."""
        answer = requests.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()

    def stop(self) -> None:
        """End all of it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)

    def _is_up(self) -> bool:
        return self._process.poll() is not None or "Stop with Ctrl-C" in self._log.read_text()

    def _python(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, *arguments],
            env=self._env, cwd=ROOT, check=True, timeout=120, stdout=subprocess.DEVNULL,
        )  # fmt: skip
