"""`python manage.py environment`: README's table of environment variables, from their declarations.

With `--write` it replaces the table in README.md, between its two marks; with `--check` it only says
whether the one there is the same. Never shows a value that is set.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from batcher.env import Variable

BEGIN, END = "<!-- environment: begin -->", "<!-- environment: end -->"


def table(variables: list[Variable]) -> str:
    """Return the Markdown table of `variables`."""
    head = ["| variable | default | what it does |", "| --- | --- | --- |"]
    return "\n".join([*head, *map(_row, variables)])


def with_table(document: str, variables: list[Variable]) -> str:
    """Return `document` with a fresh table between its marks; raise ValueError when it has none."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    fresh = f"{BEGIN}\n{table(variables)}\n{END}"
    changed, count = pattern.subn(lambda _match: fresh, document)
    if count != 1:
        raise ValueError(f"the document must hold one pair of {BEGIN} and {END}, not {count}")
    return changed


def _row(variable: Variable) -> str:
    names = [variable.name, f"{variable.name}_FILE"] if variable.is_secret else [variable.name]
    shown = ", ".join(f"`{name}`" for name in names)
    default = variable.default
    if re.fullmatch(r"[\w./:-]+", default) and not default.isalpha():
        default = f"`{default}`"
    return f"| {shown} | {default} | {variable.description} |"


class Command(BaseCommand):
    """Print, write or check the table of environment variables."""

    help = "Print README's table of environment variables; --write puts it there, --check compares."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what to do with the table."""
        does = parser.add_mutually_exclusive_group()
        does.add_argument("--write", action="store_true", help="put the table into README.md")
        does.add_argument("--check", action="store_true", help="fail when README.md is stale")

    def handle(self, *, write: bool, check: bool, **_options: Any) -> None:
        """Do it."""
        from batcher.settings import ENVIRONMENT

        if not (write or check):
            sys.stdout.write(table(ENVIRONMENT.declared) + "\n")
            return
        readme = Path(settings.BASE_DIR) / "README.md"
        before = readme.read_text(encoding="utf-8")
        after = with_table(before, ENVIRONMENT.declared)
        if check and before != after:
            raise CommandError("README.md is stale: run `python manage.py environment --write`")
        if write:
            readme.write_text(after, encoding="utf-8")
