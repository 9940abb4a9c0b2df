"""A file of requests on its way to a server: in parts, once, and on again where it was interrupted.

The command `submit` calls it. A part is one upload under a name made from the run and the part's place, so a part
that is sent twice is stored once and answered alike. What is done is written beside the file after each part
(``FILE.batcher.json``): whoever is stopped goes on from there. Results are written as far as they are whole.
Knows neither Django nor the database, and never changes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from batching.remote import Server, Trouble

PART_LINES: Final = 1_000
PART_BYTES: Final = 8 * 1024 * 1024
"""Half of what the server stores at once, so that it stores a part whole or not at all."""

_line = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(kw_only=True)
class Run:
    """How far a file is; kept beside it as JSON."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    server: str
    file_sha256: str
    defaults: dict[str, Any]
    submission: str = ""
    offset: int = 0
    """Bytes of the file that are sent."""
    lines: int = 0
    """Lines that are sent."""
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    cursor: str = ""
    out_path: str = ""
    out_bytes: int = 0
    """Bytes of results that are whole, for ``cursor``."""


@dataclass(frozen=True, kw_only=True)
class LineProblem:
    """A line that the server did not take."""

    line: int
    detail: str


def resume(path: Path, server: str, defaults: dict[str, Any], *, anew: bool) -> Run:
    """Return the run of this file that was interrupted, or a new one. Raises Trouble when they don't fit."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise Trouble(f"{path} can't be read: {problem.strerror}") from problem
    fresh = Run(server=server, file_sha256=sha256, defaults=defaults)
    kept = state_of(path)
    if anew or not kept.exists():
        return fresh
    try:
        run = Run(**json.loads(kept.read_bytes()))
    except (ValueError, TypeError) as problem:
        raise Trouble(f"{kept} can't be read; --again starts anew") from problem
    if (run.server, run.file_sha256, run.defaults) != (server, sha256, defaults):
        raise Trouble(
            f"{kept} tells of another server, other options or another content; --again starts anew"
        )
    return run


def state_of(path: Path) -> Path:
    """Return where the run of a file is kept."""
    return path.with_name(f"{path.name}.batcher.json")


def keep(path: Path, run: Run) -> None:
    """Write how far the run is, whole or not at all."""
    draft = state_of(path).with_suffix(".json.draft")
    draft.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")
    draft.replace(state_of(path))


def send(
    server: Server, path: Path, run: Run, *, told: Callable[[list[LineProblem]], None]
) -> None:
    """Send what is not sent yet, part by part; ``told`` hears of each part's refused lines."""
    for part, end, count in parts(path, run.offset, run.defaults):
        name = f"{run.name}-{run.offset}"
        if part:
            taken = server.send(part, submission=run.submission, name=name)
            problems = [
                LineProblem(line=run.lines + e["line"], detail=f"{e['code']}: {e['detail']}")
                for e in taken["errors"]
            ]
            run.submission = taken["submission"]
            run.accepted += taken["accepted"]
            run.duplicates += taken["duplicates"]
            run.rejected += taken["rejected"]
        else:
            problems = []
        run.offset, run.lines = end, run.lines + count
        keep(path, run)
        told(problems)


def parts(path: Path, offset: int, defaults: Mapping[str, Any]) -> Iterator[tuple[bytes, int, int]]:
    """Yield (lines to send, offset behind them, how many lines they are); blank parts are empty."""
    encoded = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in defaults.items()}
    with path.open("rb") as file:
        file.seek(offset)
        held, size = list[bytes](), 0
        for line in file:
            held.append(completed(line, encoded))
            size += len(held[-1])
            if len(held) >= PART_LINES or size >= PART_BYTES:
                yield _joined(held), file.tell(), len(held)
                held, size = [], 0
        if held:
            yield _joined(held), file.tell(), len(held)


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(lines) if any(not line.isspace() for line in lines) else b""


def completed(line: bytes, defaults: Mapping[str, msgspec.Raw]) -> bytes:
    """Return a line with what it lacks; bytes that are there stay, and what is no object is the server's to refuse."""
    try:
        members = _line.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError):
        return line if line.endswith(b"\n") else line + b"\n"
    missing = {name: value for name, value in defaults.items() if name not in members}
    if not missing:
        return line if line.endswith(b"\n") else line + b"\n"
    return msgspec.json.encode({**members, **missing}).replace(b"\n", b" ") + b"\n"


def fetch(server: Server, submission: str, out: Path, run: Run) -> bool:
    """Append what results are there behind ``run.cursor``; return whether they are complete.

    What an interrupted fetch wrote beyond the cursor is cut off first.
    """
    with out.open("ab") as file:
        file.truncate(run.out_bytes)
        with server.results(submission, run.cursor) as results:
            for piece in results.pieces():
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            run.cursor, run.out_bytes = results.cursor, file.tell()
            return results.is_complete
