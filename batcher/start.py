"""What must hold before anything is started, checked in the order that gives one clear line.

Decides what `run` and `setup` refuse to start with: a second start on the same data, a port in use, a database
that does not answer, system checks. Raises CannotStart with the line to show. Starts no process.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.checks import run_checks
from django.core.management import call_command
from django.db import DatabaseError, connection, connections

PORT_WAIT_S = 2.0
"""A start right after a hard stop may find the port still held by a process that is ending."""


class CannotStart(Exception):
    """Something outside must be put right first; the message is one line for the person who starts us."""


@contextmanager
def only_one_start(data_dir: Path) -> Iterator[None]:
    """Hold the lock of `data_dir`, so that no second start serves the same data."""
    with (data_dir / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise CannotStart(
                f"DATA_DIR {str(data_dir)!r} is already being served by another start"
            ) from problem
        yield


def refuse_wrong_settings() -> None:
    """Raise CannotStart with the first error that Django's system checks or ours find."""
    for problem in run_checks():
        if problem.is_serious():
            raise CannotStart(f"{problem.id}: {problem.msg}")


def require_port(host: str, port: int) -> None:
    """Raise CannotStart unless `port` is free on `host`."""
    deadline = time.monotonic() + PORT_WAIT_S
    while (problem := _port_problem(host, port)) is not None:
        if problem.errno != errno.EADDRINUSE:
            raise CannotStart(
                f"BATCHER_HOST {host} with PORT {port} can not be listened on: {problem.strerror}"
            )
        if time.monotonic() > deadline:
            raise CannotStart(f"PORT {port} is in use on {host}; set PORT to a free one")
        time.sleep(0.1)


def free_port(wanted: int) -> int:
    """Return `wanted` when it is free on this computer, else one that is."""
    if _port_problem("127.0.0.1", wanted) is None:
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def migrate() -> None:
    """Bring the database to this version; raise CannotStart when it does not answer."""
    try:
        connection.ensure_connection()
    except DatabaseError as problem:
        first_line = str(problem).strip().partition("\n")[0]
        raise CannotStart(f"DATABASE_URL can not be connected to: {first_line}") from problem
    call_command("migrate", interactive=False, verbosity=0)


def close_connections() -> None:
    """Give back what the set-up used; children open their own."""
    connections.close_all()


def _port_problem(host: str, port: int) -> OSError | None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as problem:
        return problem
    return None
