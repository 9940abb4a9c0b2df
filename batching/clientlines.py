"""The lines of a client's batch file: read in constant memory, checked all before any is stored.

Decides how a wrong line is told: in OpenAI's codes, with its number. Called by `clientbatch`; stores
nothing. Beside one line, memory holds 24 to 48 bytes for each custom_id, to find one that is there twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from batching import intake, wire
from batching.wire import Delivery, Invalid, Line

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
MAX_ERRORS: Final = 1_000
"""Errors that are told of one file; the last one told counts the others."""
_BOM = b"\xef\xbb\xbf"
DUPLICATE: Final = "duplicate_custom_id"
_LOOK_UP_EVERY = 2_000
_DIGEST_BYTES: Final = 16
_NO_DIGEST: Final = bytes(_DIGEST_BYTES)
_CODES: Final = {
    wire.MALFORMED_JSON: "invalid_json_line",
    wire.INVALID_ENCODING: "invalid_json_line",
    wire.NESTED_TOO_DEEP: "invalid_json_line",
}
_CODES_BY_PLACE: Final = {
    "/url": "invalid_url",
    "/method": "invalid_method",
    "/body/stream": "streaming_unsupported",
}


@dataclass(frozen=True, kw_only=True)
class LineError:
    """Why a file is not taken, as ``errors.data`` of a batch has it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(kw_only=True)
class Checked:
    """What a look at a whole file found."""

    lines: int = 0
    errors: list[LineError] = field(default_factory=list)
    errors_left_out: int = 0

    def note(self, error: LineError) -> None:
        """Keep an error, or count it when there are too many to tell."""
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)
        else:
            self.errors_left_out += 1


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for lines that don't say otherwise."""

    delivery: Delivery | None
    max_wait_s: int

    def fill(self, line: Line) -> Line:
        """Return the line with what it left open."""
        max_wait_s = self.max_wait_s if line.max_wait_s is None else line.max_wait_s
        return structs.replace(line, delivery=line.delivery or self.delivery, max_wait_s=max_wait_s)


class Seen:
    """The custom_ids of a file, to find one that is there twice: a quarter of what a Python set takes.

    Digests of 16 bytes lie side by side in one table, each in the first free slot from the one that it
    names; the table is at most two thirds full.
    """

    def __init__(self) -> None:
        self._slots, self._used = 1024, 0
        self._table = bytearray(self._slots * _DIGEST_BYTES)

    def add(self, custom_id: str) -> bool:
        """Remember a custom_id; False when it is there already."""
        if self._used * 3 >= self._slots * 2:
            self._grow()
        return self._put(hashlib.blake2b(custom_id.encode(), digest_size=_DIGEST_BYTES).digest())

    def _put(self, digest: bytes) -> bool:
        slot = int.from_bytes(digest[:8], "big") % self._slots
        while True:
            at = slot * _DIGEST_BYTES
            held = self._table[at : at + _DIGEST_BYTES]
            if held == digest:
                return False
            if held == _NO_DIGEST:
                self._table[at : at + _DIGEST_BYTES] = digest
                self._used += 1
                return True
            slot = (slot + 1) % self._slots

    def _grow(self) -> None:
        held, self._slots, self._used = self._table, self._slots * 2, 0
        self._table = bytearray(self._slots * _DIGEST_BYTES)
        for at in range(0, len(held), _DIGEST_BYTES):
            digest = bytes(held[at : at + _DIGEST_BYTES])
            if digest != _NO_DIGEST:
                self._put(digest)


class Checker:
    """Looks at the lines of one file, one after another, and remembers their custom_ids."""

    def __init__(self, taken: intake.Check, defaults: Defaults) -> None:
        self._taken, self._defaults = taken, defaults
        self._seen = Seen()

    def problem(self, number: int, data: bytes | None) -> LineError | None:
        """Return why a line can't be taken; None when it can. ``data`` of None is an over-long line."""
        if data is None:
            message = f"The line is longer than {MAX_LINE_BYTES:,} bytes."
            return LineError(code="invalid_request", message=message, line=number)
        try:
            line = self._defaults.fill(wire.read_batch_line(data))
        except Invalid as problem:
            return _told(problem.code, problem.detail, problem.pointer, number)
        if not self._seen.add(line.custom_id):
            message = (
                f"The custom_id {line.custom_id[:100]!r} is on more than one line of the file."
            )
            return LineError(code=DUPLICATE, message=message, param="custom_id", line=number)
        refused = self._taken.problem(line)
        if refused is None:
            return None
        return _told(refused.code, refused.detail, refused.pointer, number)


def check(
    path: Path, taken: intake.Check, defaults: Defaults, alive: Callable[[], None]
) -> Checked:
    """Look at every line of a file, storing nothing; ``alive`` is called now and then meanwhile."""
    found, checker = Checked(), Checker(taken, defaults)
    for number, data in _numbered(path):
        found.lines += 1
        if found.lines % _LOOK_UP_EVERY == 0:
            alive()
        error = checker.problem(number, data)
        if error is not None:
            found.note(error)
    if not found.lines:
        found.note(LineError(code="empty_file", message="The file has no requests."))
    return found


def read(path: Path, defaults: Defaults) -> Iterator[Line]:
    """Yield the lines of a file that was checked."""
    for _, data in _numbered(path):
        yield defaults.fill(wire.read_batch_line(data or b""))


def _numbered(path: Path) -> Iterator[tuple[int, bytes | None]]:
    r"""Yield (1-based number, line) of each line that is not blank; None stands for an over-long one.

    Cut at ``\n`` bytes only: U+2028 and its kin are legal inside JSON strings.
    """
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, None
                continue
            if number == 1:
                line = line.removeprefix(_BOM)
            if not line.isspace() and line:
                yield number, line


def _told(code: str, detail: str, pointer: str, number: int) -> LineError:
    """Put our words into OpenAI's: its codes, and dots instead of slashes."""
    param = pointer.strip("/").replace("/", ".") or None
    if code == wire.VALIDATION_ERROR:
        code = _code_at(pointer, detail)
    return LineError(
        code=_CODES.get(code, code), message=_sentence(detail), param=param, line=number
    )


def _code_at(pointer: str, detail: str) -> str:
    if detail.endswith(" is missing"):
        is_model = pointer == "/body/model"
        return "invalid_request" if is_model else "missing_required_parameter"
    return _CODES_BY_PLACE.get(pointer, "invalid_request")


def _sentence(detail: str) -> str:
    return f"{detail[:1].upper()}{detail[1:]}."
