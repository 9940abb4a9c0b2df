"""``manage.py lifecycle``: docs/lifecycle.md, printed from the tables that the code moves by.

For batches and for requests a diagram and a table of every transition, with the meaning that its
docstring gives it. ``--write`` replaces both in the document, between their marks; ``--check`` only says
whether they are the same. The words around them are written by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import models

from batching.lifecycle import BAD_ENDS, BATCH_ENDS, Arrow, BatchState, RequestState, arrows
from batching.models import Batch, Request

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "lifecycle.md"
_REQUEST_ENDS = BAD_ENDS | {RequestState.DELIVERED, RequestState.DELIVERY_FAILED}
_ENDS: dict[type[models.Model], frozenset[str]] = {
    Batch: frozenset(map(str, BATCH_ENDS)),
    Request: frozenset(map(str, _REQUEST_ENDS)),
}
_FIRST: dict[type[models.Model], str] = {
    Batch: str(BatchState.BUILDING),
    Request: str(RequestState.PENDING),
}
_MOST_DRAWN = 6
"""An arrow from more states than these would only hide the others: it is in the table alone."""


def printed(model: type[models.Model]) -> str:
    """Return the diagram and the table of one model, as Markdown."""
    steps = arrows(model)
    drawn = [step for step in steps if len(step.sources) <= _MOST_DRAWN]
    left_out = ", ".join(f"`{step.name}`" for step in steps if step not in drawn)
    note = f"\nNot drawn, for it starts from almost everywhere: {left_out}.\n" if left_out else ""
    return "\n".join([*_diagram(model, drawn), note, *_table(steps)])


def _diagram(model: type[models.Model], steps: list[Arrow]) -> Iterator[str]:
    yield from ("```mermaid", "stateDiagram-v2", f"    [*] --> {_FIRST[model]}")
    for step in steps:
        for source in step.sources:
            yield f"    {source} --> {step.target}: {step.name}"
    for state in sorted(_ENDS[model]):
        yield f"    {state} --> [*]"
    yield "```"


def _table(steps: tuple[Arrow, ...]) -> Iterator[str]:
    yield from ("| transition | from | to | meaning |", "| --- | --- | --- | --- |")
    for step in steps:
        sources = ", ".join(step.sources)
        yield f"| `{step.name}` | {sources} | {step.target} | {step.meaning} |"


def with_printed(document: str) -> str:
    """Return the document with fresh diagrams and tables; raise ValueError where marks are missing."""
    for model in _ENDS:
        name = model._meta.model_name
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        fresh = f"{begin}\n{printed(model)}\n{end}"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        document, count = pattern.subn(fresh.replace("\\", r"\\"), document)
        if count != 1:
            raise ValueError(f"the document must hold one pair of {begin} and {end}, not {count}")
    return document


class Command(BaseCommand):
    """Print, write or check the tables of states."""

    help = "Print the tables of states; --write puts them into docs/lifecycle.md, --check compares."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what to do with the tables."""
        does = parser.add_mutually_exclusive_group()
        does.add_argument("--write", action="store_true", help="put them into docs/lifecycle.md")
        does.add_argument("--check", action="store_true", help="fail when the document is stale")

    def handle(self, *, write: bool, check: bool, **_options: Any) -> None:
        """Do it."""
        if not (write or check):
            self.stdout.write("\n\n".join(map(printed, _ENDS)))
            return
        before = DOCUMENT.read_text(encoding="utf-8")
        after = with_printed(before)
        if check and before != after:
            raise CommandError(
                "docs/lifecycle.md is stale: run `python manage.py lifecycle --write`"
            )
        if write:
            DOCUMENT.write_text(after, encoding="utf-8")
