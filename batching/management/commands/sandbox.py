"""``manage.py sandbox``: become the stand-in provider.

Replaces this process by ``python -m sandbox`` with the same arguments, so that signals and the exit
code are the sandbox's own. Nothing of the sandbox is imported; docs/sandbox.md describes it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

_ROOT = Path(__file__).resolve().parents[3]
_ARGUMENTS = {
    "host": "address to listen on (default: 127.0.0.1)",
    "port": "port; 0 takes a free one (default: 8001)",
    "data": "folder that keeps its state (default: sandbox in DATA_DIR)",
    "scenario": "scenario file, or the name of a ready-made one",
    "speed": "how many times as fast its clock runs (default: 1)",
    "seed": "seed of everything random (default: 0)",
    "api-key": "take only this key (default: any)",
}


class Command(BaseCommand):
    """Start the sandbox in place of this process."""

    help = "Run the sandbox, a stand-in for OpenAI's Batch API that misbehaves on command."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what the sandbox takes; it checks the values itself."""
        for name, text in _ARGUMENTS.items():
            parser.add_argument(f"--{name}", help=text)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Hand over."""
        options["data"] = options["data"] or str(Path(settings.DATA_DIR) / "sandbox")
        given = {name: options[name.replace("-", "_")] for name in _ARGUMENTS}
        arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        os.execve(  # noqa: S606  # our own interpreter, no shell
            sys.executable,
            [sys.executable, "-m", "sandbox", *arguments],
            {**os.environ, "PYTHONPATH": path},
        )
