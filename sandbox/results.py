"""Writing what came of a batch: its output file and its error file, faults included.

Lines are answered in a seeded order that is not the input's; the first ``batch.answered`` of it are
answered, the rest are rows that say why they never ran. All of it depends on the seed, the batch's
number, its file and the rules alone, so that work cut short by a restart is simply done again.
Only one line is in memory at a time. Called by engine.py, in its thread.
"""

from __future__ import annotations

import array
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import msgspec

from sandbox.answers import answer
from sandbox.answers.call import Answer, Call, digest_of
from sandbox.errors import INVALID, error_body
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
_NOT_RUN = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of an output or error file; members are JSON, ready to be written."""

    file: str
    id: str
    custom_id: bytes | None
    response: bytes = b"null"
    error: bytes = b"null"
    ending: bytes = b"\n"
    raw: bytes | None = None
    """Written in place of everything else."""

    def encoded(self) -> bytes:
        """Return the line."""
        if self.raw is not None:
            return self.raw + self.ending
        name = b"" if self.custom_id is None else b'"custom_id":%b,' % self.custom_id
        members = (self.id.encode(), name, self.response, self.error)
        return b'{"id":"%b",%b"response":%b,"error":%b}' % members + self.ending


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
            return [self._not_run(line)], self.batch.ending
        texts, faults = self._faults(line)
        given = self._answer(line, texts)
        if any(isinstance(fault, NoUsage) for fault in faults):
            given.body.pop("usage", None)
        rows = [self._answered(line, given, texts)]
        is_failed = given.status >= 300
        for fault in faults:
            rows = [made for row in rows for made in _apply(fault, row)]
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
        subject = line_subject(line, line.body["model"], batch.endpoint, batch.metadata)
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
        )
        return answer(self.batch.endpoint, call)

    def _answered(self, line: Line, given: Answer, texts: list[LineRule]) -> Row:
        body = encode(given.body)
        for fault in texts:
            if isinstance(fault, OddText):
                body = body.replace(_MARK.encode(), _odd_bytes(fault), 1)
        return Row(
            file="output" if given.status < 300 else "error",
            id=f"batch_req_{self._identity(line)}",
            custom_id=line.raw_custom_id,
            response=_response(given.status, self._identity(line), body),
        )

    def _not_run(self, line: Line) -> Row:
        code, message = _NOT_RUN[self.batch.ending]
        return Row(
            file="error",
            id=f"batch_req_{self._identity(line)}",
            custom_id=line.raw_custom_id,
            error=encode({"code": code, "message": message}),
        )

    def _identity(self, line: Line) -> str:
        name = f"{self.seed}:{self.batch.seq}:{line.number}".encode()
        return hashlib.blake2b(name, digest_size=16).hexdigest()


def encode(value: Any) -> bytes:
    """Return JSON, also of texts with lone surrogates, which the fast writer refuses."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def _apply(fault: LineRule, row: Row) -> list[Row]:
    """Return what a fault makes of a row: none, one or more."""
    change = _CHANGES.get(type(fault))
    return [row] if change is None else change(fault, row)


def _fail(fault: Any, row: Row) -> list[Row]:
    kind = fault.error_type or _error_type(fault.status)
    body = error_body(fault.message, kind=kind, param=fault.param, code=fault.code)
    response = _response(fault.status, row.id.removeprefix("batch_req_"), encode(body))
    return [replace(row, file=fault.file, response=response)]


def _set_error(fault: Any, row: Row) -> list[Row]:
    response = row.response if fault.keep_response else b"null"
    return [replace(row, file=fault.file, error=encode(fault.error), response=response)]


def _duplicate(fault: Any, row: Row) -> list[Row]:
    twin = _fail(FailLine(file="output"), row)[0] if fault.conflicting else row
    return [row, twin]


def _add_unknown(fault: Any, row: Row) -> list[Row]:
    return [row, replace(row, id=f"{row.id}_unknown", custom_id=encode(fault.custom_id))]


def _break(fault: Any, row: Row) -> list[Row]:
    whole = row.encoded().rstrip(b"\r\n")
    broken = replace(row, raw=whole[: len(whole) // 2])
    return [broken] if fault.instead else [row, broken]


_CHANGES: dict[type[LineRule], Callable[[Any, Row], list[Row]]] = {
    FailLine: _fail,
    LineError: _set_error,
    DropLine: lambda _fault, _row: [],
    DuplicateLine: _duplicate,
    UnknownLine: _add_unknown,
    NoCustomId: lambda _fault, row: [replace(row, custom_id=None)],
    InvalidJson: _break,
    BlankLine: lambda _fault, row: [row, replace(row, raw=b"")],
    CrlfEnding: lambda _fault, row: [replace(row, ending=b"\r\n")],
}


def _response(status: int, identity: str, body: bytes) -> bytes:
    return b'{"status_code":%d,"request_id":"req_%b","body":%b}' % (status, identity.encode(), body)


def _error_type(status: int) -> str:
    if status >= 500 or status < 100:
        return "server_error"
    return "rate_limit_error" if status == 429 else INVALID


def _suffix(fault: LineRule) -> str:
    if isinstance(fault, BigAnswer):
        return (" and so on" * (fault.size_bytes // 10 + 1))[: fault.size_bytes]
    return f" {_MARK}"


def _odd_bytes(fault: OddText) -> bytes:
    return b" ".join(_ODD.values()) if fault.kind == "all" else _ODD[fault.kind]


def _storable(custom_id: str) -> str:
    return custom_id.encode("utf-8", "replace").decode("utf-8")
