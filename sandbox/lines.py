"""Reading a batch's input file and refusing it the way OpenAI does.

Lines end at the byte ``\\n`` and nowhere else. ``validate`` reads the file once and stops at the
first line it can't take (codes as observed in 2026-09); ``line_starts`` gives the places from which
results.py reads the lines in another order. Nothing here keeps more than one line in memory.
"""

from __future__ import annotations

import array
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sandbox.answers.embeddings import count_inputs
from sandbox.faults import RefuseLine
from sandbox.objects import BatchError
from sandbox.rules import RuleBook, Subject, Tally

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()
_REQUIRED = ("custom_id", "method", "url", "body")


class StoppedError(Exception):
    """The sandbox is shutting down; the work is done again after the next start."""


class Line(msgspec.Struct, kw_only=True):
    """One request of a batch, read."""

    number: int
    """From 1."""
    custom_id: Any
    method: Any
    url: Any
    body: Any
    raw_custom_id: bytes
    """As it came, to be written back unchanged."""
    raw_body: bytes


class LineRefusedError(Exception):
    """The line can't be part of a batch."""

    def __init__(
        self, code: str, message: str, param: str | None = None, *, is_named: bool = True
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.is_named = is_named


@dataclass(kw_only=True)
class Validation:
    """What reading the whole file told."""

    total: int = 0
    model: str | None = None
    tokens: int = 0
    """Rough count of prompt tokens: a quarter of the bodies' bytes."""
    error: BatchError | None = None


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number from 1, without its newline; no empty ones at the end."""
    with path.open("rb") as file:
        last = 0
        for number, raw in enumerate(file, start=1):
            if line := raw.rstrip(b"\r\n"):
                yield from ((blank, b"") for blank in range(last + 1, number))
                yield number, line
                last = number


def line_starts(path: Path) -> array.array[int]:
    """Return the offset of each line that holds a request."""
    starts = array.array("Q")
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            if raw.strip(b"\r\n"):
                starts.append(offset)
            offset += len(raw)
    return starts


def parse(number: int, raw: bytes) -> Line:
    """Read one line; raise LineRefusedError unless it is an object with all four members."""
    try:
        members = {name: bytes(value) for name, value in _members.decode(raw).items()}
    except msgspec.DecodeError:
        members = _parse_leniently(raw)
    for name in _REQUIRED:
        if name not in members:
            raise LineRefusedError(
                "missing_required_parameter", f"Missing required parameter: '{name}'.", name
            )
    return Line(
        number=number,
        **{name: loads(members[name]) for name in _REQUIRED},
        raw_custom_id=members["custom_id"],
        raw_body=members["body"],
    )


def loads(raw: bytes) -> Any:
    """Read JSON, lone surrogates included, which the fast reader refuses."""
    try:
        return _anything.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _loads_slowly(raw)


@dataclass(kw_only=True)
class Validator:
    """Reads one batch's file and says whether the batch may run."""

    endpoint: str
    book: RuleBook
    tally: Tally
    metadata: dict[str, str] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _seen: set[bytes] = field(default_factory=set)
    _inputs: int = 0

    def validate(self, path: Path) -> Validation:
        """Read the file up to its end or its first bad line; raise StoppedError when told to stop."""
        result = Validation()
        for number, raw in numbered_lines(path):
            if self.stop.is_set():
                raise StoppedError
            try:
                self._take(parse(number, raw), result)
            except LineRefusedError as refused:
                result.error = BatchError(
                    code=refused.code,
                    message=str(refused),
                    param=refused.param,
                    line=number if refused.is_named else None,
                )
                return result
        if not result.total:
            result.error = BatchError(code="empty_file", message="The input file is empty.")
        return result

    def _take(self, line: Line, result: Validation) -> None:
        self._check_shape(line)
        self._check_unique(line)
        model = self._check_model(line, result.model)
        self._check_limits(line, result.total + 1)
        self._check_rules(line, model)
        result.model = model
        result.total += 1
        result.tokens += len(line.raw_body) // 4 + 1

    def _check_shape(self, line: Line) -> None:
        if not isinstance(line.custom_id, str):
            raise LineRefusedError("invalid_request", "custom_id must be a string.", "custom_id")
        if line.method != "POST":
            raise LineRefusedError(
                "invalid_method", "The method of a request must be POST.", "method"
            )
        if line.url != self.endpoint:
            raise LineRefusedError(
                "invalid_url",
                f"The URL provided for this request does not match the batch endpoint "
                f"'{self.endpoint}'.",
                "url",
            )
        if not isinstance(line.body, dict):
            raise LineRefusedError("invalid_request", "body must be an object.", "body")
        if line.body.get("stream") is True:
            raise LineRefusedError(
                "streaming_unsupported", "Streaming is not supported in batches.", "body.stream"
            )

    def _check_unique(self, line: Line) -> None:
        # A digest in place of the id itself: ids may be long, and there are up to 50,000.
        name = line.custom_id.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(name, digest_size=16).digest()
        if digest in self._seen:
            raise LineRefusedError(
                "duplicate_custom_id",
                f"The custom_id '{line.custom_id}' for this request is a duplicate of another "
                "request. The custom_id parameter must be unique for each request in a batch.",
                "custom_id",
            )
        self._seen.add(digest)

    def _check_model(self, line: Line, first: str | None) -> str:
        model = line.body.get("model")
        if not isinstance(model, str):
            raise LineRefusedError("invalid_request", "The body must name a model.", "body.model")
        if not self.book.is_known_model(model):
            raise LineRefusedError(
                "model_not_found",
                f"The provided model '{model}' is not supported by the Batch API.",
                "body.model",
            )
        if first is not None and model != first:
            raise LineRefusedError(
                "mismatched_model",
                f"The model '{model}' of this request differs from '{first}'. All requests of a "
                "batch must use one model.",
                "body.model",
            )
        return model

    def _check_limits(self, line: Line, total: int) -> None:
        limit = self.book.scenario.limits.lines
        if total > limit:
            raise LineRefusedError("request_limit_exceeded", f"A batch may hold {limit} requests.")
        if self.endpoint != "/v1/embeddings":
            return
        self._inputs += count_inputs(line.body.get("input"))
        if self._inputs > limit:
            raise LineRefusedError(
                "request_limit_exceeded",
                f"A batch may hold {limit} embedding inputs.",
                "body.input",
            )

    def _check_rules(self, line: Line, model: str) -> None:
        if not self.book.has_line_rules:
            return
        subject = line_subject(line, model, self.endpoint, self.metadata)
        for rule in self.book.line_faults((RefuseLine,), subject, self.tally):
            if isinstance(rule, RefuseLine):
                raise LineRefusedError(rule.code, rule.message, rule.param, is_named=rule.is_named)


def line_subject(
    line: Line, model: str | None, endpoint: str, metadata: dict[str, str] | None
) -> Subject:
    """Return the line as rules see it."""
    return Subject(
        custom_id=line.custom_id,
        body=line.raw_body,
        line=line.number,
        model=model,
        endpoint=endpoint,
        metadata=metadata,
    )


def peek_model(path: Path) -> str | None:
    """Return the model of the first line, None when it can't be read."""
    try:
        number, raw = next(numbered_lines(path))
        body = parse(number, raw).body
    except (OSError, StopIteration, LineRefusedError):
        return None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def _parse_leniently(raw: bytes) -> dict[str, bytes]:
    """Split a line that the fast reader refused; values come re-encoded, as ASCII."""
    value = _loads_slowly(raw)
    if not isinstance(value, dict):
        raise _not_json()
    return {name: json.dumps(member).encode() for name, member in value.items()}


def _loads_slowly(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _not_json() from error


def _not_json() -> LineRefusedError:
    return LineRefusedError("invalid_json_line", "This line is not parseable as valid JSON.")
