"""What the commands that speak to a running server share: its options, its words, its exit codes.

0: all went well; 1: some requests did not; 2: wrong use, or the server could not be asked.
"""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from batching.remote import Server, Trouble

STAGES = ("accepted", "packed", "at provider", "answered", "delivered")


class ServerCommand(BaseCommand):
    """A command that needs a server and no database."""

    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Ask where the server is."""
        parser.add_argument("--url", help="the server (default: BATCHER_URL)")
        parser.add_argument("--key", help="API key (default: BATCHER_API_KEY, which no list shows)")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, and leave with the right code."""
        try:
            code = self.act(options)
        except Trouble as problem:
            self.stderr.write(str(problem))
            code = 2
        except KeyboardInterrupt:
            self.stderr.write("Stopped. The same command goes on from here.")
            code = 130
        if code:
            sys.exit(code)

    def act(self, options: dict[str, Any]) -> int:
        """Return the exit code."""
        raise NotImplementedError

    def server(self, options: dict[str, Any]) -> Server:
        """Return the server that the options or the environment name. Raises Trouble."""
        url = options["url"] or settings.BATCHER_URL
        key = options["key"] or settings.BATCHER_API_KEY
        if not key:
            raise Trouble("no API key: set BATCHER_API_KEY or give --key")
        return Server(url, key)


class _Rate(ProgressColumn):
    """Requests a second."""

    def render(self, task: Task) -> Text:
        """Show the speed of late, or the mean when it is over."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


class Stages:
    """Bars that fill as a submission goes its way."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._bars = {stage: self._progress.add_task(stage, total=None) for stage in STAGES}

    def __enter__(self) -> Stages:
        """Show them, on a terminal."""
        self._progress.disable = not sys.stderr.isatty()
        self._progress.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        """Leave them as they are."""
        self._progress.stop()

    def show(self, total: int, done: dict[str, int]) -> None:
        """Set the bars; a stage that is not named stays."""
        for stage, count in done.items():
            self._progress.update(self._bars[stage], total=total, completed=count)


def stages_of(shown: dict[str, Any]) -> dict[str, int]:
    """Return how many requests of a submission have reached each stage."""
    far = shown["progress"]
    return {
        "accepted": far["total"], "packed": far["packed"], "at provider": far["sent"],
        "answered": far["answered"], "delivered": far["delivered"],
    }  # fmt: skip


def is_over(shown: dict[str, Any]) -> bool:
    """Tell whether every request has ended and no result is on its way."""
    far = shown["progress"]
    return bool(far["answered"] == far["total"] and not far["to_deliver"])


def is_good(shown: dict[str, Any]) -> bool:
    """Tell whether nothing went wrong so far."""
    far = shown["progress"]
    return not (shown["rejected"] or far["failed"] or far["delivery_failed"])


def in_words(shown: dict[str, Any]) -> str:
    """Return a submission in one line."""
    far = shown["progress"]
    stages = ", ".join(f"{count:,} {stage}" for stage, count in stages_of(shown).items())
    return (
        f"{shown['id']}: {stages}; {far['failed']:,} failed,"
        f" {far['delivery_failed']:,} not delivered, {shown['rejected']:,} lines refused"
    )
