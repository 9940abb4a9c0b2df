"""``manage.py submit FILE``: send a file of requests to a running server, and wait for it if asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from batching import sendfile
from batching.management.commands._server import (
    ServerCommand,
    Stages,
    in_words,
    is_good,
    is_over,
    stages_of,
)
from batching.remote import Server, Trouble
from batching.sendfile import LineProblem, Run
from batching.wire import ENDPOINTS

_LOOK_EVERY_S = 1.0
MAX_TOLD = 20


class Command(ServerCommand):
    """Send a file of requests."""

    help = "Send a file of requests (JSON lines) to a running server. See docs/cli.md."

    def add_arguments(self, parser: CommandParser) -> None:
        """Ask for the file, and for what its lines lack."""
        super().add_arguments(parser)
        parser.add_argument("file", type=Path)
        parser.add_argument("--wait", action="store_true", help="stay until the last result")
        parser.add_argument("--out", type=Path, help="write results here; waits")
        parser.add_argument("--again", action="store_true", help="forget an earlier run of FILE")
        parser.add_argument(
            "--max-wait", type=int, metavar="S", help="max_wait_s of lines without one"
        )
        parser.add_argument("--endpoint", choices=ENDPOINTS, help="url of lines without one")
        text = (
            "delivery_config of lines without one: none, a URL, queue:Q, exchange:E:KEY or name:N"
        )
        parser.add_argument("--deliver", default="none", metavar="WHERE", help=text)

    def act(self, options: dict[str, Any]) -> int:
        """Send, and wait."""
        server, path = self.server(options), options["file"]
        run = sendfile.resume(path, server.url, _defaults(options), anew=options["again"])
        with Stages() as stages:
            self._send(server, path, run, stages)
            if not run.submission:
                raise Trouble(f"{path} has no line")
            if options["wait"] or options["out"]:
                self._follow(server, path, run, stages, options["out"])
        shown = server.submission(run.submission)
        self.stderr.write(in_words(shown))
        if run.duplicates:
            text = f"{run.duplicates:,} lines were known; their results belong to where they came first."
            self.stderr.write(text)
        self.stdout.write(run.submission)
        return 0 if is_good(shown) else 1

    def _send(self, server: Server, path: Path, run: Run, stages: Stages) -> None:
        left = MAX_TOLD

        def told(problems: list[LineProblem]) -> None:
            nonlocal left
            for problem in problems[:left]:
                self.stderr.write(f"line {problem.line}: {problem.detail}")
            left -= len(problems[:left])
            stages.show(run.lines, {"accepted": run.accepted})

        sendfile.send(server, path, run, told=told)

    def _follow(
        self, server: Server, path: Path, run: Run, stages: Stages, out: Path | None
    ) -> None:
        """Look until all is over, writing results as they come whole; then forget the run."""
        if out is not None and str(out.absolute()) != run.out_path:
            run.out_path, run.cursor, run.out_bytes = str(out.absolute()), "", 0
        while True:
            shown = server.submission(run.submission)
            stages.show(shown["progress"]["total"], stages_of(shown))
            is_fetched = out is None or sendfile.fetch(server, run.submission, out, run)
            sendfile.keep(path, run)
            if is_over(shown) and is_fetched:
                break
            time.sleep(_LOOK_EVERY_S)
        sendfile.state_of(path).unlink()


def _defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Return the members that a line without them gets."""
    given = {"url": options["endpoint"], "max_wait_s": options["max_wait"]}
    found = {name: value for name, value in given.items() if value is not None}
    return {"method": "POST", "delivery_config": place(options["deliver"]), **found}


def place(where: str) -> dict[str, str]:
    """Return the ``delivery_config`` that a word stands for. Raises Trouble."""
    kind, _, name = where.partition(":")
    if where == "none":
        return {"type": "none"}
    if kind in ("http", "https"):
        return {"type": "webhook", "webhook_url": where}
    if kind == "queue" and name:
        return {"type": "rabbitmq", "rabbitmq_queue": name}
    if kind == "name" and name:
        return {"type": "destination", "name": name}
    exchange, _, key = name.partition(":")
    if kind == "exchange" and exchange and key:
        return {"type": "rabbitmq", "rabbitmq_exchange": exchange, "rabbitmq_routing_key": key}
    raise Trouble("--deliver takes none, a URL, queue:Q, exchange:E:KEY or name:N")
