"""Writing what came of a batch: its output file and its error file, faults included.

A message batch has all its results in the output file; rows.py knows both kinds of rows.

Lines are answered in a seeded order that is not the input's; the first ``batch.answered`` of it are
answered, the rest are rows that say why they never ran. All of it depends on the seed, the batch's
number, its file and the rules alone, so that work cut short by a restart is simply done again.
Only one line is in memory at a time. Called by engine.py, in its thread.
"""

from __future__ import annotations

import array
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sandbox.answers import answer
from sandbox.answers.call import Answer, Call, digest_of
from sandbox.errors import is_anthropic
from sandbox.faults import (
    BigAnswer,
    BlankLine,
    CrlfEnding,
    DropLine,
    DuplicateLine,
    FailLine,
    InvalidJson,
    LineError,
    LineRule,
    NoCustomId,
    NoUsage,
    OddText,
    UnknownLine,
)
from sandbox.lines import Line, StoppedError, line_starts, line_subject, parse
from sandbox.objects import Batch, TokenUse
from sandbox.rows import OutputRow, ResultRow, Row, apply, encode
from sandbox.rules import RuleBook, Tally

_CHUNK = 1_000
"""Lines whose outcome is kept in one transaction: few enough to keep no reader waiting."""

_TEXT_FAULTS = (OddText, BigAnswer)
_ROW_FAULTS = (
    FailLine, LineError, DropLine, DuplicateLine, UnknownLine, NoCustomId, InvalidJson, BlankLine,
    CrlfEnding, NoUsage,
)  # fmt: skip

# A private-use character stands for the odd ones until the answer is encoded: an encoder would
# refuse a lone surrogate, and escape the others as it pleases.
_MARK = "\ue000"
_ODD = {
    "u2028": b"\xe2\x80\xa8\xe2\x80\xa9\xc2\x85",
    "nul": b"\\u0000",
    "lone_surrogate": b"\\ud83d",
    "crlf": b"\\r\\n",
}


@dataclass(kw_only=True)
class Results:
    """What a batch came to."""

    completed: int = 0
    failed: int = 0
    usage: TokenUse = field(default_factory=TokenUse)


@dataclass(kw_only=True)
class ResultWriter:
    """Answers one batch's lines into two files."""

    batch: Batch
    book: RuleBook
    tally: Tally
    seed: int
    now: float
    stop: threading.Event
    keep: Callable[[list[tuple[int, int, str, str]]], None]
    """Takes what became of some lines: batch's number, line's number, custom_id, outcome."""

    def write(self, source: Path, output: Path, errors: Path) -> Results:
        """Write both files, empty ones too; raise StoppedError when told to stop."""
        results = Results()
        kept: list[tuple[int, int, str, str]] = []
        with output.open("wb") as good, errors.open("wb") as bad:
            sinks: dict[str, IO[bytes]] = {"output": good, "error": bad}
            for position, line in enumerate(self._shuffled(source)):
                if self.stop.is_set():
                    raise StoppedError
                rows, outcome = self._rows(line, results, is_run=position < self.batch.answered)
                for row in rows:
                    sinks[row.file].write(row.encoded())
                kept.append((self.batch.seq, line.number, _storable(line.custom_id), outcome))
                if len(kept) >= _CHUNK:
                    self.keep(kept)
                    kept = []
        self.keep(kept)
        return results

    def _shuffled(self, source: Path) -> Iterator[Line]:
        starts = line_starts(source)
        order = array.array("L", range(len(starts)))
        chance = random.Random(f"{self.seed}:{self.batch.seq}")  # noqa: S311  # an order, no secret
        chance.shuffle(order)
        with source.open("rb") as file:
            for index in order:
                file.seek(starts[index])
                yield parse(index + 1, file.readline().rstrip(b"\r\n"))

    def _rows(self, line: Line, results: Results, *, is_run: bool) -> tuple[list[Row], str]:
        if not is_run:
            results.failed += 1
            return [self._row(line).not_run(self.batch.ending)], self.batch.ending
        texts, faults = self._faults(line)
        given = self._answer(line, texts)
        if any(isinstance(fault, NoUsage) for fault in faults):
            given.body.pop("usage", None)
        rows = [self._row(line).answered(given, self._body(given, texts))]
        is_failed = given.status >= 300
        for fault in faults:
            rows = [made for row in rows for made in apply(fault, row)]
            is_failed = is_failed or isinstance(fault, FailLine | LineError)
        if is_failed:
            results.failed += 1
            return rows, "failed"
        results.completed += 1
        results.usage.add(given.usage)
        return rows, "answered"

    def _faults(self, line: Line) -> tuple[list[LineRule], list[LineRule]]:
        if not self.book.has_line_rules:
            return [], []
        batch = self.batch
        model = line.body.get("model")
        model = model if isinstance(model, str) else None
        subject = line_subject(line, model, batch.endpoint, batch.metadata)
        return (
            self.book.line_faults(_TEXT_FAULTS, subject, self.tally),
            self.book.line_faults(_ROW_FAULTS, subject, self.tally),
        )

    def _answer(self, line: Line, texts: list[LineRule]) -> Answer:
        call = Call(
            body=line.body,
            digest=digest_of(self.seed, self.batch.endpoint, line.raw_body),
            identity=self._identity(line),
            created_at=int(self.now),
            suffix="".join(_suffix(fault) for fault in texts),
            is_known_model=self.book.is_known_model,
        )
        return answer(self.batch.endpoint, call)

    def _body(self, given: Answer, texts: list[LineRule]) -> bytes:
        body = encode(given.body)
        for fault in texts:
            if isinstance(fault, OddText):
                body = body.replace(_MARK.encode(), _odd_bytes(fault), 1)
        return body

    def _row(self, line: Line) -> Row:
        kind = ResultRow if is_anthropic(self.batch.endpoint) else OutputRow
        return kind(identity=self._identity(line), custom_id=line.raw_custom_id)

    def _identity(self, line: Line) -> str:
        name = f"{self.seed}:{self.batch.seq}:{line.number}".encode()
        return hashlib.blake2b(name, digest_size=16).hexdigest()


def _suffix(fault: LineRule) -> str:
    if isinstance(fault, BigAnswer):
        return (" and so on" * (fault.size_bytes // 10 + 1))[: fault.size_bytes]
    return f" {_MARK}"


def _odd_bytes(fault: OddText) -> bytes:
    return b" ".join(_ODD.values()) if fault.kind == "all" else _ODD[fault.kind]


def _storable(custom_id: str) -> str:
    return custom_id.encode("utf-8", "replace").decode("utf-8")
