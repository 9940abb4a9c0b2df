"""Become another program that ends with its starter: `python -m batcher.child <pid> <signal> program …`.

Decides how a child learns that its supervisor died without a word (kill -9, out of memory): on Linux the
kernel sends it the signal. `batcher/supervisor.py` starts every child through this, instead of running code
between fork and exec in a process that has threads. Elsewhere than on Linux it only becomes the program.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, look whether the starter is already gone, become the program."""
    starter, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != starter:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  # the supervisor's own list, no shell


if __name__ == "__main__":
    main()
