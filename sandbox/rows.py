"""The rows of a results file, and what faults make of them.

A Row is one line: OpenAI's has a response and an error, Anthropic's one result. What strikes rows
of both alike (missing, doubled, broken lines) is here once; what an HTTP failure or a strange error
looks like, each kind of row says itself. Used by results.py, which decides who is struck.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sandbox.answers.call import Answer
from sandbox.errors import INVALID, anthropic_error_body, error_body
from sandbox.faults import (
    BlankLine,
    CrlfEnding,
    DropLine,
    DuplicateLine,
    FailLine,
    InvalidJson,
    LineError,
    LineRule,
    NoCustomId,
    UnknownLine,
)

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
class Row(ABC):
    """One line of a results file; members are JSON, ready to be written."""

    identity: str
    """What the ids in the row are made of."""
    custom_id: bytes | None
    file: str = "output"
    """``output`` or ``error``."""
    ending: bytes = b"\n"
    raw: bytes | None = None
    """Written in place of everything else."""

    def encoded(self) -> bytes:
        """Return the line."""
        whole = self.whole() if self.raw is None else self.raw
        return whole + self.ending

    @abstractmethod
    def whole(self) -> bytes:
        """Return the line as it should be, without its ending."""

    def named(self, custom_id: bytes) -> Row:
        """Return the row as one more, of a request that nobody sent."""
        return replace(self, custom_id=custom_id)

    @abstractmethod
    def answered(self, given: Answer, body: bytes) -> Row:
        """Return the row with an answer; ``body`` is what is written of it."""

    @abstractmethod
    def not_run(self, ending: str) -> Row:
        """Return the row of a request that the batch's end (expired, cancelled) came before."""

    @abstractmethod
    def failed(self, fault: FailLine) -> Row:
        """Return the row with an HTTP failure."""

    @abstractmethod
    def with_error(self, fault: LineError) -> Row:
        """Return the row with an error of any shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputRow(Row):
    """OpenAI's: ``{"id", "custom_id", "response", "error"}``."""

    mark: str = ""
    response: bytes = b"null"
    error: bytes = b"null"

    def whole(self) -> bytes:
        """Return the line."""
        name = b"" if self.custom_id is None else b'"custom_id":%b,' % self.custom_id
        members = (f"{self.identity}{self.mark}".encode(), name, self.response, self.error)
        return b'{"id":"batch_req_%b",%b"response":%b,"error":%b}' % members

    def named(self, custom_id: bytes) -> Row:
        """Give it an id of its own too."""
        return replace(self, custom_id=custom_id, mark="_unknown")

    def answered(self, given: Answer, body: bytes) -> Row:
        """Put a good answer into the output file, a bad one into the error file."""
        file = "output" if given.status < 300 else "error"
        return replace(self, file=file, response=self._response(given.status, body))

    def not_run(self, ending: str) -> Row:
        """Say in the error file why the request never ran."""
        code, message = _NOT_RUN[ending]
        return replace(self, file="error", error=encode({"code": code, "message": message}))

    def failed(self, fault: FailLine) -> Row:
        """Put the failure in the file that the fault names."""
        kind = fault.error_type or _error_type(fault.status)
        body = error_body(fault.message, kind=kind, param=fault.param, code=fault.code)
        response = self._response(fault.status, encode(body))
        return replace(self, file=fault.file, response=response)

    def with_error(self, fault: LineError) -> Row:
        """Set the member ``error``."""
        response = self.response if fault.keep_response else b"null"
        return replace(self, file=fault.file, error=encode(fault.error), response=response)

    def _response(self, status: int, body: bytes) -> bytes:
        members = (status, self.identity.encode(), body)
        return b'{"status_code":%d,"request_id":"req_%b","body":%b}' % members


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow(Row):
    """Anthropic's: ``{"custom_id", "result"}``, all in one file (anthropic SDK 2.11 types)."""

    result: bytes = b"null"

    def whole(self) -> bytes:
        """Return the line."""
        name = b"" if self.custom_id is None else b'"custom_id":%b,' % self.custom_id
        return b'{%b"result":%b}' % (name, self.result)

    def answered(self, given: Answer, body: bytes) -> Row:
        """Say ``succeeded`` with the message, or ``errored`` with the error."""
        if given.status >= 300:
            return replace(self, result=b'{"type":"errored","error":%b}' % body)
        return replace(self, result=b'{"type":"succeeded","message":%b}' % body)

    def not_run(self, ending: str) -> Row:
        """Say ``expired`` or ``canceled``, and nothing else."""
        word = "canceled" if ending == "cancelled" else ending
        return replace(self, result=encode({"type": word}))

    def failed(self, fault: FailLine) -> Row:
        """Say ``errored``; param, code and file are no words of Anthropic's."""
        body = anthropic_error_body(
            fault.status, fault.message, request_id=f"req_{self.identity}", kind=fault.error_type
        )
        return replace(self, result=encode({"type": "errored", "error": body}))

    def with_error(self, fault: LineError) -> Row:
        """Say ``errored`` with an error of any shape."""
        return replace(self, result=encode({"type": "errored", "error": fault.error}))


def encode(value: Any) -> bytes:
    """Return JSON, also of texts with lone surrogates, which the fast writer refuses."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def apply(fault: LineRule, row: Row) -> list[Row]:
    """Return what a fault makes of a row: none, one or more."""
    change = _CHANGES.get(type(fault))
    return [row] if change is None else change(fault, row)


def _duplicate(fault: Any, row: Row) -> list[Row]:
    twin = row.failed(FailLine(file="output")) if fault.conflicting else row
    return [row, twin]


def _add_unknown(fault: Any, row: Row) -> list[Row]:
    return [row, row.named(encode(fault.custom_id))]


def _break(fault: Any, row: Row) -> list[Row]:
    whole = row.encoded().rstrip(b"\r\n")
    broken = replace(row, raw=whole[: len(whole) // 2])
    return [broken] if fault.instead else [row, broken]


_CHANGES: dict[type[LineRule], Callable[[Any, Row], list[Row]]] = {
    FailLine: lambda fault, row: [row.failed(fault)],
    LineError: lambda fault, row: [row.with_error(fault)],
    DropLine: lambda _fault, _row: [],
    DuplicateLine: _duplicate,
    UnknownLine: _add_unknown,
    NoCustomId: lambda _fault, row: [replace(row, custom_id=None)],
    InvalidJson: _break,
    BlankLine: lambda _fault, row: [row, replace(row, raw=b"")],
    CrlfEnding: lambda _fault, row: [replace(row, ending=b"\r\n")],
}


def _error_type(status: int) -> str:
    if status >= 500 or status < 100:
        return "server_error"
    return "rate_limit_error" if status == 429 else INVALID
