"""The command line: ``python -m sandbox``. Starts everything, and stops it on SIGINT or SIGTERM.

Whatever keeps the sandbox from starting is one line on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from sandbox import scenario
from sandbox.clock import Clock
from sandbox.engine import Engine
from sandbox.scenario import Scenario, ScenarioError
from sandbox.server import application
from sandbox.store import Store

_GRACE_S = 0.5


class StartError(Exception):
    """The sandbox can't start; the message is for the person who tried."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until it is told to stop; return the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s sandbox %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_serve(options))
    except StartError as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201  # the command's own words
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A stand-in for the batch APIs of OpenAI and Anthropic.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 takes a free one")
    parser.add_argument(
        "--data", type=Path, default=Path("data/sandbox"), help="folder that keeps its state"
    )
    parser.add_argument(
        "--scenario", metavar="FILE", help="scenario file, or the name of a ready-made one"
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, help="how many times as fast its clock runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("SANDBOX_API_KEY"),
        help="take only this key (default: $SANDBOX_API_KEY, else any)",
    )
    return parser


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than 0")
    return speed


async def _serve(options: argparse.Namespace) -> None:
    told = _stop_signal()
    first = _first_scenario(options.scenario)
    store = _open_store(options.data)
    try:
        _set_scenario(store, first if options.scenario else None)
        engine = Engine(store, Clock(options.speed, store.last_reading()), options.seed)
        app = application(engine, api_key=options.api_key, first=first)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_S)
        await runner.setup()
        try:
            port = await _listen(runner, options.host, options.port)
            engine.start()
            host = f"[{options.host}]" if ":" in options.host else options.host
            print(f"sandbox ready on http://{host}:{port}/v1", flush=True)  # noqa: T201
            await _until_told(told, engine)
        finally:
            await runner.cleanup()
            await engine.close()
    finally:
        store.close()


def _first_scenario(name: str | None) -> Scenario:
    try:
        return scenario.load(name) if name else Scenario()
    except ScenarioError as error:
        raise StartError(str(error)) from error


def _open_store(folder: Path) -> Store:
    try:
        return Store(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"can't use data folder {folder}: {reason}") from error


def _set_scenario(store: Store, given: Scenario | None) -> None:
    """Take the scenario of the command line; the same one again keeps its counts."""
    stored = store.scenario()
    wanted = scenario.dump(given or Scenario())
    if stored is None or (given is not None and stored[1] != wanted):
        store.put_scenario(wanted)


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except (OSError, OverflowError) as error:
        reason = (
            "the port is in use"
            if getattr(error, "errno", None) == errno.EADDRINUSE
            else str(error)
        )
        raise StartError(f"can't listen on {host}:{port}: {reason}") from error
    address: tuple[str, int] = runner.addresses[0]
    return address[1]


def _stop_signal() -> asyncio.Event:
    """Return what is set by SIGINT and SIGTERM, from now on."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    return told


async def _until_told(told: asyncio.Event, engine: Engine) -> None:
    waiting = asyncio.create_task(told.wait())
    tasks: set[asyncio.Task[object]] = {waiting}
    if engine.task is not None:
        tasks.add(engine.task)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if not told.is_set() and engine.task is not None:
        waiting.cancel()
        raise StartError(f"stopped, batches can't be moved on: {engine.task.exception()!r}")
