"""The lines of a client's batch file: read in constant memory, checked all before any is stored.

Decides how a wrong line is told: in OpenAI's codes, with its number. Called by `clientbatch`; stores
nothing. Beside one line, memory holds 16 bytes for each custom_id, to find one that is there twice.
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
_LOOK_UP_EVERY = 2_000
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


def check(
    path: Path, taken: intake.Check, defaults: Defaults, alive: Callable[[], None]
) -> Checked:
    """Look at every line of a file, storing nothing; ``alive`` is called now and then meanwhile."""
    found, seen = Checked(), set[bytes]()
    for number, data in _numbered(path):
        found.lines += 1
        if found.lines % _LOOK_UP_EVERY == 0:
            alive()
        error = _problem(number, data, taken, defaults, seen)
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


def _problem(
    number: int, data: bytes | None, taken: intake.Check, defaults: Defaults, seen: set[bytes]
) -> LineError | None:
    if data is None:
        message = f"The line is longer than {MAX_LINE_BYTES:,} bytes."
        return LineError(code="invalid_request", message=message, line=number)
    try:
        line = defaults.fill(wire.read_batch_line(data))
    except Invalid as problem:
        return _told(problem.code, problem.detail, problem.pointer, number)
    name = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
    if name in seen:
        message = f"The custom_id {line.custom_id[:100]!r} is on more than one line of the file."
        return LineError(
            code="duplicate_custom_id", message=message, param="custom_id", line=number
        )
    seen.add(name)
    refused = taken.problem(line)
    if refused is None:
        return None
    return _told(refused.code, refused.detail, refused.pointer, number)


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
