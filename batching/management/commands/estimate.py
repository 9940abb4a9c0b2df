"""``manage.py estimate FILE``: what a file holds and which of its lines are wrong, before it is sent.

Reads with the very rules of the server, so it needs none.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandParser

from batching import tokens, wire
from batching.sendfile import completed

MAX_TOLD = 20
BATCH_REQUESTS, BATCH_BYTES = 50_000, 200_000_000
"""What one batch of OpenAI holds (Batch guide, 2026-08); an account may be set lower."""
_DEFAULTS = {"method": msgspec.Raw(b'"POST"'), "delivery_config": msgspec.Raw(b'{"type":"none"}')}


@dataclass
class Found:
    """What a file holds."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def refuse(self, number: int, why: str) -> None:
        """Note a wrong line."""
        self.wrong += 1
        if len(self.problems) < MAX_TOLD:
            self.problems.append(f"line {number}: {why}")


class Command(BaseCommand):
    """Tell what a file holds."""

    help = "Count the requests, bytes and tokens of a file, by model and endpoint, and name its wrong lines."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Ask for the file, and for what its lines lack."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--endpoint", choices=wire.ENDPOINTS, help="url of lines without one")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Read and tell; 1 when a line is wrong, 2 when the file can't be read."""
        defaults = dict(_DEFAULTS)
        if options["endpoint"]:
            defaults["url"] = msgspec.Raw(msgspec.json.encode(options["endpoint"]))
        try:
            with options["file"].open("rb") as file:
                found = look(file, defaults)
        except OSError as problem:
            self.stderr.write(f"{options['file']} can't be read: {problem.strerror}")
            sys.exit(2)
        for line in _told(found):
            self.stdout.write(line)
        if found.wrong:
            sys.exit(1)


def look(lines: Iterator[bytes], defaults: dict[str, msgspec.Raw]) -> Found:
    """Read every line as the server would; memory holds sixteen bytes for each custom_id."""
    found, seen = Found(), set[bytes]()
    for number, data in enumerate(lines, start=1):
        if data.isspace():
            continue
        try:
            line = wire.read_line(completed(data, defaults))
        except wire.Invalid as problem:
            found.refuse(number, f"{problem.code}: {problem.detail}")
            continue
        name = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
        if name in seen:
            found.refuse(number, "duplicate_custom_id: an earlier line has it")
            continue
        seen.add(name)
        lane = (line.model, line.url)
        found.requests[lane] += 1
        found.bytes[lane] += len(line.body)
        found.tokens[lane] += tokens.estimates([line])[0].tokens
    return found


def _told(found: Found) -> Iterator[str]:
    for lane, count in found.requests.most_common():
        size = found.bytes[lane]
        batches = max(-(-count // BATCH_REQUESTS), -(-size // BATCH_BYTES))
        yield (
            f"{lane[0]} {lane[1]}: {count:,} requests, {size:,} bytes,"
            f" about {found.tokens[lane]:,} input tokens, {batches:,} batches or more"
        )
    yield from found.problems
    yield f"{found.requests.total():,} requests, {found.wrong:,} wrong lines"
