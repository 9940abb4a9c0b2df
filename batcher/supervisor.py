"""Keep child processes alive together: all of them run, or none does.

Decides when a dead child is started again, when to give up, and how everything stops. The `run` command
calls `Supervisor.run`. Children get SIGTERM first and SIGKILL after a grace; they die with us even when we
are killed (batcher/child.py). Each line they write appears in one log behind the child's name.
Never restarts a child that is merely slow, never looks into what a child does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

STOP_AFTER_S = 8.0
"""How long children may take to end before they are killed; all of it is over within ten seconds."""
FAILURES_ALLOWED = 5
FAILURES_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1
_LONGEST_DELAY_S = 8.0


@dataclass(kw_only=True)
class Child:
    """One process to keep alive, and what became of it so far."""

    name: str
    """Stands before each of its lines in the log."""
    command: list[str]
    """Program and arguments."""
    process: subprocess.Popen[bytes] | None = None
    """The running one, or the last one."""
    reader: threading.Thread | None = None
    """Copies its lines to the log."""
    failures: deque[float] = field(default_factory=deque)
    """When it died, as far as that counts against it; monotonic seconds."""
    due_at: float | None = None
    """When it is started again; None while it runs."""


class Supervisor:
    """Starts children, restarts dead ones, and stops all at the first signal or at one failure too many.

    `with_children` names those that start processes themselves.
    """

    def __init__(
        self,
        commands: Mapping[str, list[str]],
        *,
        environment: Mapping[str, str],
        with_children: frozenset[str] = frozenset(),
        out: IO[str] = sys.stderr,
    ) -> None:
        self._children = [Child(name=name, command=list(cmd)) for name, cmd in commands.items()]
        self._width = max(map(len, commands))
        self._environment = dict(environment)
        self._with_children = with_children
        self._out = out
        self._out_lock = threading.Lock()
        self._stop = threading.Event()
        self._gave_up = ""

    def run(self, *, when_started: Callable[[], bool]) -> int:
        """Keep all children alive until a signal; return the exit code.

        `when_started` is asked again and again until it returns True, and then no more; it is where the
        caller looks whether everything answers, and greets.
        """
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup we stay
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._start_all()
            self._watch(when_started)
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._gave_up:
            self._say(self._gave_up)
        return 1 if self._gave_up else 0

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop.set()

    def _start_all(self) -> None:
        for child in self._children:
            self._start(child)

    def _watch(self, when_started: Callable[[], bool]) -> None:
        greeted = False
        while not self._stop.wait(_LOOK_EVERY_S):
            for child in self._children:
                self._look_at(child, time.monotonic())
            greeted = greeted or when_started()

    def _look_at(self, child: Child, now: float) -> None:
        if child.due_at is not None:
            if now >= child.due_at:
                self._start(child)
            return
        if child.process is not None and child.process.poll() is not None:
            self._after_death(child, child.process.returncode, now)

    def _after_death(self, child: Child, code: int, now: float) -> None:
        while child.failures and child.failures[0] < now - FAILURES_WITHIN_S:
            child.failures.popleft()
        child.failures.append(now)
        how = f"ended {_cause(code)}"
        if len(child.failures) > FAILURES_ALLOWED:
            times = f"{len(child.failures)} times within {FAILURES_WITHIN_S:.0f} s"
            self._gave_up = f"{child.name} {how}, {times}; everything was stopped"
            self._stop.set()
            return
        _signal_group(child, signal.SIGKILL)  # what it started must not outlive it
        delay_s = min(2.0 ** (len(child.failures) - 2), _LONGEST_DELAY_S)
        child.due_at = now + delay_s
        self._say(f"{child.name} {how}; it is started again in {delay_s:g} s")

    def _start(self, child: Child) -> None:
        # If we are killed: one that works would hold its locks and its port against the next start for as
        # long as its work takes, so it is killed too; one with children must be asked, to end them.
        number = signal.SIGTERM if child.name in self._with_children else signal.SIGKILL
        launcher = [sys.executable, "-m", "batcher.child", str(os.getpid()), str(int(number))]
        child.due_at = None
        # A session of its own: Ctrl-C in a terminal reaches us alone, and we end them in our way.
        child.process = subprocess.Popen(  # noqa: S603  # our own list, no shell
            [*launcher, *child.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        child.reader = threading.Thread(
            target=self._copy_lines, args=(child.name, child.process.stdout), daemon=True
        )
        child.reader.start()

    def _copy_lines(self, name: str, lines: Iterable[bytes]) -> None:
        for line in lines:
            shown = line.decode("utf-8", "replace").rstrip()
            if shown:
                self._write(name, shown)

    def _say(self, line: str) -> None:
        now = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write("batcher", f"{now} WARNING supervisor {line}")

    def _write(self, name: str, line: str) -> None:
        with self._out_lock:
            self._out.write(f"{name:<{max(self._width, 7)}} | {line}\n")
            self._out.flush()

    def _stop_all(self) -> None:
        deadline = time.monotonic() + STOP_AFTER_S
        running = [child for child in self._children if _is_running(child)]
        for child in running:
            assert child.process is not None  # noqa: S101  # for the type checker
            child.process.terminate()
        while running and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
            running = [child for child in running if _is_running(child)]
        for child in running:
            self._say(f"{child.name} did not end within {STOP_AFTER_S:g} s and is killed")
        for child in self._children:
            _signal_group(child, signal.SIGKILL)
            if child.process is not None:
                child.process.wait()
            if child.reader is not None:
                child.reader.join(timeout=1)


def _is_running(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _signal_group(child: Child, number: signal.Signals) -> None:
    """Signal all that is left of the session that `child` began."""
    if child.process is None:
        return
    try:
        os.killpg(child.process.pid, number)
    except (ProcessLookupError, PermissionError):
        return  # nothing is left of it


def _cause(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}"
