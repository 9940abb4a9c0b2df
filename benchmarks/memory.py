"""Peak memory of the processes that a drive goes through, and how it grows with the size of the drive.

The drives here take ``--pid`` (of `manage.py run`; its children are found) and ``--first``: with it a smaller
drive goes before the one that was asked for, and each process's peak is told as a ratio to its first one. Memory is
flat when the ratio stays near 1 however many times larger the second drive is. Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_FORGET_PEAK = "5"  # proc(5), clear_refs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `measured` reads."""
    parser.add_argument("--pid", type=int, action="append", default=[], help="tell its peak memory")
    parser.add_argument("--first", type=int, help="drive so many before, and compare the peaks")


def measured(drive: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Drive ``options.count``, after ``options.first`` if given, and tell the peaks; returns the exit code."""
    first: dict[str, int] = {}
    for count in filter(None, (options.first, options.count)):
        _forget(options.pid)
        code = drive(argparse.Namespace(**{**vars(options), "count": count}))
        peaks = _peaks(options.pid)
        for name, peak in peaks.items():
            ratio = f", {peak / first[name]:.2f} of the first" if name in first else ""
            sys.stdout.write(f"{peak:6} MB peak{ratio}: {name}\n")
        if code:
            return code
        first = peaks
    return 0


def _forget(pids: list[int]) -> None:
    """Let the kernel count each peak anew, from what is held now."""
    for pid in _with_children(pids):
        Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK)


def _peaks(pids: list[int]) -> dict[str, int]:
    """Return the peak memory in MB of processes and their children, by id and command."""
    peaks = {}
    for pid in _with_children(pids):
        status = Path(f"/proc/{pid}/status").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        name = " ".join(Path(word).name for word in words if not word.startswith("-"))
        peaks[f"{pid} {name.strip()[:60]}"] = int(status.split("VmHWM:")[1].split()[0]) // 1024
    return peaks


def _with_children(pids: list[int]) -> Iterator[int]:
    for pid in pids:
        yield pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        yield from _with_children([int(child) for child in children])
