"""A worker process that can be killed: takes phases of the road on this test's own database."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from tests.wiring.processes import ROOT, environment

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
        env=environment(settings.DATA_DIR, DATABASE_URL=_url_of_this_database()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(question: Callable[[], bool], *, what: str, timeout_s: float = 20) -> None:
    """Ask again and again until the answer is yes."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not question():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        pause.wait(0.02)


def _url_of_this_database() -> str:
    is_ = {name: str(value or "") for name, value in connection.settings_dict.items()}
    if connection.vendor == "sqlite":
        return f"sqlite:///{is_['NAME']}"
    who = quote(is_["USER"]) + (f":{quote(is_['PASSWORD'], safe='')}" if is_["PASSWORD"] else "")
    return f"postgresql://{who}@{is_['HOST']}:{is_['PORT'] or 5432}/{is_['NAME']}"
