#!/usr/bin/env python
"""Django's command line, with one plain line for each environment variable that is wrong."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Read the environment, then run the command that was asked for."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batcher.settings")
    from django.conf import settings
    from django.core.management import execute_from_command_line

    from batcher.env import WrongEnvironment

    try:
        settings.INSTALLED_APPS  # noqa: B018  # reads batcher/settings.py, and so the environment
    except WrongEnvironment as wrong:
        for problem in wrong.problems:
            sys.stderr.write(f"batcher: {problem}\n")
        sys.exit(1)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
