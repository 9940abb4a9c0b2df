r"""Anthropic's requests and results: the lines that we keep on disk, the body they make, the lines that come back.

A request is one line on disk, ``{"custom_id", "params"}``, and the lines are joined to the body of a
create while it is sent. Decides whether a result is a success, a failure or a request that never ran
(anthropic SDK 2.11 types). Called by ``Anthropic``; knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from batching.providers import openai_lines, tolerant
from batching.providers.base import AnswerLine, Kind, Usage

STATUS_CODES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of an error → the HTTP status that it has outside of batches (Anthropic's error page, 2026)."""
RETRYABLE_WORDS = frozenset({"rate_limit_error", "timeout_error", "api_error", "overloaded_error"})
_NOT_RUN = {
    "canceled": ("batch_cancelled", "the batch was cancelled before this request ran"),
    "expired": ("batch_expired", "the batch expired before this request ran"),
}
_HEAD, _TAIL = b'{"requests":[', b"]}"
_COMMAS = bytes.maketrans(b"\n", b",")


class _Line(msgspec.Struct):
    custom_id: str
    result: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"")


class _Result(msgspec.Struct):
    type: Any = None
    message: _Message | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_result = msgspec.json.Decoder(_Result).decode


class Envelope:
    """The body of a create, put together from a file of lines while it is read. Use it with ``with``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._left = max(0, path.stat().st_size - 1)  # all but the last newline
        self.len = len(_HEAD) + self._left + len(_TAIL)
        self._head, self._tail = BytesIO(_HEAD), BytesIO(_TAIL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, amount: int = -1, /) -> bytes:
        """Return the next bytes, none at the end; without an amount, all that is left."""
        if amount < 0:
            return b"".join(iter(lambda: self.read(1 << 18), b""))
        if block := self._head.read(amount):
            return block
        if block := self._file.read(min(amount, self._left)):
            self._left -= len(block)
            return block.translate(_COMMAS)
        return self._tail.read(amount)


def render_line(*, custom_id: str, body: bytes) -> bytes:
    r"""Return one line; ``body`` is spliced in as it came, but for line breaks between its tokens."""
    return b'{"custom_id":%b,"params":%b}\n' % (
        msgspec.json.encode(custom_id),
        openai_lines.on_one_line(body),
    )


def read_answers(path: Path) -> Iterator[AnswerLine]:
    r"""Yield the lines of the results in their order; blank ones are left out."""
    return openai_lines.read_lines(path, read_answer)


def read_answer(raw: bytes) -> AnswerLine:
    """Read one line of the results."""
    try:
        line = openai_lines.parse(raw, _decode_line)
    except (ValueError, RecursionError):
        return AnswerLine(kind=Kind.MALFORMED, raw=raw)
    if not line.custom_id or "\0" in line.custom_id:  # no database can look for a NUL
        return AnswerLine(kind=Kind.MALFORMED, raw=raw)
    try:
        result = openai_lines.parse(bytes(line.result), _decode_result)
    except (ValueError, RecursionError):
        result = _Result()
    return _read(raw, line.custom_id, result)


def _read(raw: bytes, custom_id: str, result: _Result) -> AnswerLine:
    kind = tolerant.text(result.type, limit=100)
    if kind == "succeeded":
        usage = usage_of(openai_lines.decoded(result.message.usage)) if result.message else None
        return AnswerLine(
            kind=Kind.SUCCEEDED, raw=raw, custom_id=custom_id, status_code=200, usage=usage
        )
    if kind in _NOT_RUN:
        code, message = _NOT_RUN[kind]
        return AnswerLine(
            kind=Kind.NOT_RUN, raw=raw, custom_id=custom_id, error_code=code,
            error_message=message, is_retryable=True,
        )  # fmt: skip
    word, message = _error_of(openai_lines.decoded(result.error))
    return AnswerLine(
        kind=Kind.FAILED,
        raw=raw,
        custom_id=custom_id,
        status_code=STATUS_CODES.get(word),
        error_code=word or ("unknown_result" if kind else "no_result"),
        error_message=message,
        is_retryable=word in RETRYABLE_WORDS,
    )


def _error_of(value: object) -> tuple[str, str]:
    """Return type and message of an ErrorResponse, whose error is one level deeper than expected."""
    found = tolerant.mapping(value)
    inner = tolerant.mapping(found.get("error")) or found
    word = tolerant.text(inner.get("type"), limit=100)
    return word, tolerant.text(inner.get("message")) or tolerant.text(value)


def usage_of(value: object) -> Usage | None:
    """Read token counts; what came from or went to the cache is part of our input, not of Anthropic's."""
    if not isinstance(value, dict):
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    fresh, written, read = (_tokens(value.get(name)) for name in names)
    details = tolerant.mapping(value.get("output_tokens_details"))
    kept = tolerant.mapping(value.get("cache_creation"))
    return Usage(
        input_tokens=None if fresh is None else fresh + (written or 0) + (read or 0),
        cached_tokens=read,
        output_tokens=_tokens(value.get("output_tokens")),
        reasoning_tokens=_tokens(details.get("thinking_tokens")),
        written_tokens=written,
        written_long_tokens=_tokens(kept.get("ephemeral_1h_input_tokens")),
    )


def _tokens(value: object) -> int | None:
    return tolerant.count(value, ceiling=tolerant.MAX_TOKENS)
