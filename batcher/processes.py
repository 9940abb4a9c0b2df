"""The command line of each process: web, worker, clock, intake, sandbox.

Decides how each is started, from settings alone, so that `run`, containers and service files start them
the same way. `batcher/management/commands/run.py` calls it. Starts nothing itself.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batcher.schedule import WorkQueue

_BACKLOG = 1024
_CELERY = [sys.executable, "-m", "celery", "--quiet", "--app", "batcher"]


def lean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a process with threads stays small, unless it says otherwise.

    glibc gives memory to threads from up to 8 heaps a core and hardly ever takes it back: chunks of
    requests that wander through a pool leave their peak in each. One heap costs Python no time, as only
    one thread at once holds its lock. Other C libraries don't know the variable.
    """
    return {"MALLOC_ARENA_MAX": "1"} | dict(environment)


def web(settings: Any) -> list[str]:
    """Return the command of the web server: granian, WSGI, blocking threads.

    A call that waits has a thread of its own, and takes no connection's place from other calls.
    """
    threads = settings.BATCHER_WEB_THREADS + settings.BATCHER_WAITERS
    connections = _BACKLOG // settings.BATCHER_WEB_PROCESSES + settings.BATCHER_WAITERS
    return [
        sys.executable,
        "-m",
        "granian",
        "--interface=wsgi",
        "--http=1",
        f"--host={settings.BATCHER_HOST}",
        f"--port={settings.PORT}",
        f"--workers={settings.BATCHER_WEB_PROCESSES}",
        f"--blocking-threads={threads}",
        f"--backlog={_BACKLOG}",
        f"--backpressure={max(threads, connections)}",
        "--respawn-failed-workers",
        "--workers-kill-timeout=5s",
        "--log-level=error",
        "batcher.wsgi:application",
    ]


def worker(settings: Any) -> list[str]:
    """Return the command of a Celery worker on all queues, one process with threads."""
    return [
        *_CELERY,
        "worker",
        f"--hostname=batcher-{secrets.token_hex(3)}@%h",  # two on one host must not share a name
        "--pool=threads",
        f"--concurrency={settings.BATCHER_WORKER_THREADS}",
        f"--queues={','.join(queue.value for queue in WorkQueue)}",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=WARNING",
    ]


def clock(_settings: Any) -> list[str]:
    """Return the command of the clock, which sends the tasks of `batcher/schedule.py` when they are due."""
    return [*_CELERY, "beat", "--loglevel=WARNING", "--pidfile="]


def intake(settings: Any) -> list[str]:
    """Return the command of the consumer that takes requests from RABBITMQ_INPUT_QUEUE."""
    return [sys.executable, str(settings.BASE_DIR / "manage.py"), "intake"]


def sandbox(folder: Path, port: int) -> list[str]:
    """Return the command of the stand-in provider, for this computer only."""
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "sandbox", *address, "--data", str(folder)]


PARTS: dict[str, Callable[[Any], list[str]]] = {
    "web": web,
    "worker": worker,
    "clock": clock,
    "intake": intake,
}
"""What an installation over several hosts or containers starts one by one."""


def parts_together(settings: Any) -> dict[str, list[str]]:
    """Return the command of each part that one host runs: the intake only when a queue is named."""
    has_queue = bool(settings.RABBITMQ_URL and settings.RABBITMQ_INPUT_QUEUE)
    return {
        name: command(settings) for name, command in PARTS.items() if name != "intake" or has_queue
    }


WITH_CHILDREN = frozenset({"web"})
"""Granian's first process starts the ones that answer, and ends them when it is asked to end."""
