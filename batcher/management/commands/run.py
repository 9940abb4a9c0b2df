"""`python manage.py run`: web, worker, clock, intake and, without a provider key, the sandbox, at once.

Decides the order of a start: what could go wrong is looked at first, then the database is brought up to
date, then the processes start, and last the greeting is shown once the web server answers.
`run web`, `run worker`, `run clock` and `run intake` become that one process, for containers and service
files; the intake is among all of them only when a queue is named.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from batcher import processes, start
from batcher.supervisor import Supervisor

THIS_COMPUTER = "127.0.0.0/8,::1,localhost"
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where all addresses are reached


class Command(BaseCommand):
    """Serve Batcher until Ctrl-C."""

    help = "Serve Batcher: web, worker, clock and, without a provider key, the sandbox."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the name of one part, or nothing for all of them."""
        parser.add_argument("part", nargs="?", choices=sorted(processes.PARTS))

    def handle(self, *, part: str | None, **_options: Any) -> None:
        """Run; leave with code 1 and one line when something outside must be put right first."""
        try:
            if part:
                start.refuse_wrong_settings()
                _become(processes.PARTS[part](settings))
            with start.only_one_start(settings.DATA_DIR):
                sys.exit(_serve())
        except start.CannotStart as problem:
            _tell(f"batcher: {problem}")
            sys.exit(1)


def _serve() -> int:
    """Set up, run everything, and return the exit code."""
    from batching.bootstrap import bootstrap

    start.refuse_wrong_settings()
    start.require_port(settings.BATCHER_HOST, settings.PORT)
    commands = processes.parts_together(settings)
    environment = _environment()
    sandbox_url = None
    if settings.IS_DEMO:
        port = start.free_port(settings.BATCHER_SANDBOX_PORT)
        sandbox_url = f"http://127.0.0.1:{port}/v1"
        commands["sandbox"] = processes.sandbox(settings.DATA_DIR / "sandbox", port)
        _tell(f"no provider key is set: the sandbox answers instead, at {sandbox_url}")
        _let_this_computer_receive(environment)
    start.migrate()
    greeting = bootstrap(sandbox_url=sandbox_url)
    start.close_connections()
    greet = _Greeting(greeting)
    try:
        supervisor = Supervisor(
            commands, environment=environment, with_children=processes.WITH_CHILDREN
        )
        return supervisor.run(when_started=greet)
    finally:
        greet.tell_secrets_unless_told()


def _environment() -> dict[str, str]:
    """Return the environment of the children: ours, with what they can not find out themselves."""
    paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
    return processes.lean(os.environ) | {
        "DATA_DIR": str(settings.DATA_DIR),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
    }


def _let_this_computer_receive(environment: dict[str, str]) -> None:
    """Let a receiver on this computer work out of the box, as long as all answers are made up anyway."""
    if settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS:
        return
    environment["BATCHER_ALLOW_PRIVATE_DESTINATIONS"] = THIS_COMPUTER
    _tell(
        "while the sandbox is used, results may go to this computer "
        f"(BATCHER_ALLOW_PRIVATE_DESTINATIONS={THIS_COMPUTER})"
    )


class _Greeting:
    """Tells where we are and the first credentials, once, when the web server answers."""

    def __init__(self, credentials: list[str]) -> None:
        host = _REACHED_AT.get(settings.BATCHER_HOST, settings.BATCHER_HOST)
        self._address = f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}"
        self._credentials = credentials

    def __call__(self) -> bool:
        """Say whether all has been told."""
        if not _answers(f"{self._address}/health"):
            return False
        url = settings.BATCHER_PUBLIC_URL or self._address
        _tell("", f"Batcher is at {url}/", *self._credentials)
        _tell("Stop with Ctrl-C; everything goes on at the next start.", "")
        self._credentials = []
        return True

    def tell_secrets_unless_told(self) -> None:
        """A start that failed half-way must not swallow what is shown only once."""
        _tell(*self._credentials)


def _answers(url: str) -> bool:
    """Say whether a web server answers at `url`, whatever it thinks of the question."""
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # our own http address
            return True
    except urllib.error.HTTPError as answer:
        return answer.code < 500
    except OSError:
        return False


def _become(command: list[str]) -> None:
    os.environ.update(_environment())
    os.execvp(command[0], command)  # noqa: S606  # our own list, no shell


def _tell(*lines: str) -> None:
    sys.stderr.writelines(f"{line}\n" for line in lines)
    sys.stderr.flush()
