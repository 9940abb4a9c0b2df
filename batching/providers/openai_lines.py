r"""OpenAI's JSONL: the line that we send and the lines that come back.

Decides whether an answer line is a success, a failure or a request that never ran (OpenAI Batch
guide, 2026-09). Lines are cut at ``\n`` bytes only, because U+2028 and its kin are legal inside JSON
strings, and only the few members that we need are decoded, so that nothing is ever re-encoded.
Called by ``OpenAI``; knows nothing of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from batching.providers import tolerant
from batching.providers.base import AnswerLine, Kind, Usage

NOT_RUN_CODES = frozenset({"batch_expired", "batch_cancelled", "request_timeout"})
RETRYABLE_STATUSES = frozenset({0, 408, 409, 429})
RETRYABLE_WORDS = frozenset(
    {"server_error", "internal_error", "internal_server_error", "overloaded_error", "timeout"}
    | {"rate_limit_exceeded", "rate_limit_error"}
)
FINAL_WORDS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Never retryable, though they come with status 429."""

T = TypeVar("T")

_ABSENT = msgspec.Raw(b"")
_SPACED = bytes.maketrans(b"\r\n", b"  ")
_BOM = b"\xef\xbb\xbf"
# msgspec refuses a lone surrogate escape even in members that it only skips.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class _Line(msgspec.Struct):
    custom_id: str
    response: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _Response(msgspec.Struct):
    status_code: Any = None
    body: msgspec.Raw = _ABSENT


class _Body(msgspec.Struct):
    error: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_any = msgspec.json.Decoder().decode


def render_line(*, custom_id: str, endpoint: str, body: bytes) -> bytes:
    """Return one input line; ``body`` is spliced in as it came, but for line breaks between its tokens."""
    body = on_one_line(body)
    head = b'{"custom_id":%b,"method":"POST","url":%b,"body":'
    return b"".join(
        (head % (msgspec.json.encode(custom_id), msgspec.json.encode(endpoint)), body, b"}\n")
    )


def on_one_line(body: bytes) -> bytes:
    r"""Return a JSON body without line breaks.

    Raw ``\r`` and ``\n`` bytes become spaces. JSON allows them between tokens only, never inside a
    string, so a body that a client sent pretty-printed keeps its meaning and fits on one line.
    """
    return body.translate(_SPACED) if b"\n" in body or b"\r" in body else body


def read_answers(path: Path) -> Iterator[AnswerLine]:
    """Yield the lines of an output or error file in file order; blank ones are left out."""
    return read_lines(path, read_answer)


def read_lines(path: Path, read: Callable[[bytes], AnswerLine]) -> Iterator[AnswerLine]:
    r"""Yield what ``read`` makes of each line of a file that is not blank.

    ``raw`` is the line without its ``\n`` or ``\r\n`` and, on the first one, without a byte order mark.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if line.endswith(b"\n"):
                line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
            if number == 0:
                line = line.removeprefix(_BOM)
            if line and not line.isspace():
                yield read(line)


def read_answer(raw: bytes) -> AnswerLine:
    """Read one line of an output or error file."""
    try:
        line = parse(raw, _decode_line)
    except (ValueError, RecursionError):
        return AnswerLine(kind=Kind.MALFORMED, raw=raw)
    if not line.custom_id or "\0" in line.custom_id:  # no database can look for a NUL
        return AnswerLine(kind=Kind.MALFORMED, raw=raw)
    if not _is_null(line.response):
        return _answered(raw, line)
    return _not_answered(raw, line)


def parse(raw: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode a line, also one with half a surrogate pair in it.

    Raises ValueError (of which msgspec's errors are children) for anything that ``decode`` refuses.
    """
    raw.isascii() or raw.decode()  # msgspec does not look into members that it skips
    try:
        return decode(raw)
    except msgspec.DecodeError:
        # A copy of the same length in which the offending escapes are harmless; ``raw`` stays.
        tamed = _SURROGATE_ESCAPE.sub(rb"\\ufffd", raw)
        if tamed == raw:
            raise
        return decode(tamed)


def _answered(raw: bytes, line: _Line) -> AnswerLine:
    status, body = _response_of(line.response)
    error = line.error if not _is_null(line.error) else body.error
    usage = usage_of(decoded(body.usage)) if body.usage is not _ABSENT else None
    if _is_fine(status) and _is_null(error):
        return AnswerLine(
            kind=Kind.SUCCEEDED, raw=raw, custom_id=line.custom_id, status_code=status, usage=usage
        )
    code, words, message = _error_of(error)
    return AnswerLine(
        kind=Kind.FAILED,
        raw=raw,
        custom_id=line.custom_id,
        status_code=status,
        error_code=code,
        error_message=message,
        is_retryable=_is_retryable(status, words),
        usage=usage,
    )


def _not_answered(raw: bytes, line: _Line) -> AnswerLine:
    """Read a line without response: the request never ran, or the server has no HTTP to tell of.

    DeepInfra writes every failure this way, with the HTTP status as ``code``.
    """
    code, words, message = _error_of(line.error)
    not_run = code in NOT_RUN_CODES
    status = int(code) if re.fullmatch(r"[0-9]{3}", code) else None
    return AnswerLine(
        kind=Kind.NOT_RUN if not_run else Kind.FAILED,
        raw=raw,
        custom_id=line.custom_id,
        error_code=code or "no_response",
        error_message=message,
        is_retryable=not_run or _is_retryable(status, words),
    )


def _is_retryable(status: int | None, words: frozenset[str]) -> bool:
    if words & FINAL_WORDS:
        return False
    if status is not None and (status in RETRYABLE_STATUSES or status >= 500):
        return True
    return bool(words & RETRYABLE_WORDS)


def _response_of(response: msgspec.Raw) -> tuple[int | None, _Body]:
    try:
        read = _decode_response(response)
    except (ValueError, RecursionError):
        return None, _Body()
    status = read.status_code
    if isinstance(status, str) and re.fullmatch(r"[0-9]{1,3}", status):
        status = int(status)
    status = tolerant.count(status)
    try:
        return status, _decode_body(read.body)
    except (ValueError, RecursionError):
        # Not an object: Mistral spells its errors as a JSON string.
        return status, _Body() if _is_fine(status) else _Body(error=read.body)


def _is_null(raw: msgspec.Raw) -> bool:
    return not len(raw) or (len(raw) == 4 and bytes(raw) == b"null")


def _is_fine(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def _error_of(error: msgspec.Raw) -> tuple[str, frozenset[str], str]:
    """Return the error's code, its code and type, and its message for people."""
    value = decoded(error)
    if not isinstance(value, dict):
        return "", frozenset(), tolerant.text(value)
    found = tolerant.mapping(value.get("error")) or value
    code, kind = (tolerant.text(found.get(name), limit=100) for name in ("code", "type"))
    return code or kind, frozenset({code, kind} - {""}), tolerant.text(found.get("message"))


def decoded(raw: msgspec.Raw) -> Any:
    """Decode a member that may be anything; one that cannot be decoded says nothing."""
    try:
        return _decode_any(raw)
    except (ValueError, RecursionError):
        return None


def usage_of(value: object) -> Usage | None:
    """Read token counts in chat's words or in those of the Responses API; None when there are none.

    Cached tokens are part of the input, reasoning tokens part of the output.
    """
    if not isinstance(value, dict):
        return None
    input_details = _first(value, "input_tokens_details", "prompt_tokens_details")
    output_details = _first(value, "output_tokens_details", "completion_tokens_details")
    return Usage(
        input_tokens=_tokens(_first(value, "input_tokens", "prompt_tokens")),
        cached_tokens=_tokens(tolerant.mapping(input_details).get("cached_tokens")),
        output_tokens=_tokens(_first(value, "output_tokens", "completion_tokens")),
        reasoning_tokens=_tokens(tolerant.mapping(output_details).get("reasoning_tokens")),
    )


def _first(value: Mapping[str, Any], name: str, other: str) -> Any:
    found = value.get(name)
    return value.get(other) if found is None else found


def _tokens(value: object) -> int | None:
    return tolerant.count(value, ceiling=tolerant.MAX_TOKENS)
