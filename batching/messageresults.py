"""The results of a message batch as Anthropic's API has them: one line for each request, in their order.

Decides what is said of a request by how it ended. The provider's message is handed on as the bytes that came;
an answer of another shape is put into Anthropic's words, and so is a bad end of ours. Requests that were never
stored (the batch was cancelled or refused before) are in the spooled file still. The Anthropic door streams it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from batching import answerline, clientfiles, resultfile
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Request, Submission

logger = logging.getLogger(__name__)

_NULL: Final = b"null"
_CANCELED: Final = b'{"type":"canceled"}'
_EXPIRED: Final = b'{"type":"expired"}'
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _Spooled(Struct, frozen=True):
    custom_id: str


class _Told(Struct, frozen=True):
    message: str | None = None
    code: str | None = None


class _Body(Struct, frozen=True):
    """An error body, as far as OpenAI's and Anthropic's agree; ``type`` is there in Anthropic's."""

    type: str | None = None
    error: _Told | None = None


class _Word(Struct, frozen=True):
    type: str
    message: str


class _Error(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="error"):
    error: _Word
    request_id: str | None = None


def lines(batch: Submission) -> Iterator[bytes]:
    """Yield the results of a batch that has ended; read its ``input_file``."""
    stored = 0
    if batch.failed_at is None:
        for row, line in resultfile.answers(batch.pk, (*resultfile.GOOD_ENDS, *BAD_ENDS)):
            stored += 1
            yield _line(row.custom_id, _result(row, line))
    end = _refused(batch) if batch.failed_at else _CANCELED
    for custom_id in _never_stored(batch, stored):
        yield _line(custom_id, end)


def _line(custom_id: str, result: bytes) -> bytes:
    written = b'{"custom_id":%b,"result":%b}' % (msgspec.json.encode(custom_id), result)
    return written.replace(b"\n", b" ") + b"\n"  # between tokens only: JSON has no other


def _never_stored(batch: Submission, stored: int) -> Iterator[str]:
    """Yield the custom_ids behind the first ``stored``: requests are stored in the order of the file."""
    file = batch.input_file
    if file is None or file.deleted_at or not clientfiles.path_of(file.key).exists():
        return
    with clientfiles.path_of(file.key).open("rb") as spooled:
        for number, line in enumerate(spooled):
            if number >= stored:
                yield msgspec.json.decode(line, type=_Spooled).custom_id


def _refused(batch: Submission) -> bytes:
    """Say why a batch was not taken after all."""
    told = batch.line_errors[0] if batch.line_errors else {}
    where = f"requests.{told['line'] - 1}: " if told.get("line") else ""
    return _errored("invalid_request_error", f"{where}{told.get('message', 'The batch failed.')}")


def _result(row: Request, line: bytes | None) -> bytes:
    if row.state == RequestState.CANCELLED:
        return _CANCELED
    if row.state == RequestState.EXPIRED:
        return _EXPIRED
    if line is None:
        return _errored("api_error", f"{row.error_code}: {row.error_message}")
    try:
        return _told_by_provider(row, line)
    except (ValueError, msgspec.DecodeError, RecursionError):
        logger.exception("answer unreadable", extra={"request": row.key})
        return _errored("api_error", "The provider's answer is stored and can't be read.")


def _told_by_provider(row: Request, line: bytes) -> bytes:
    """Return the provider's result: its own, or made of a response in OpenAI's shape."""
    cut = answerline.object_members(line)
    if "result" in cut:
        return _own_result(row, bytes(cut["result"]))
    found = answerline.members(line)
    if bytes(found.response) == _NULL:
        return _of_error(_Body(error=msgspec.json.decode(found.error, type=_Told)), 500)
    response = answerline.object_members(bytes(found.response))
    status, content = _value(response, "status_code", int), bytes(response.get("body", _NULL))
    if status < 300:
        return b'{"type":"succeeded","message":%b}' % content
    body = msgspec.json.decode(content, type=_Body)
    if body.type == "error":
        return b'{"type":"errored","error":%b}' % content
    return _of_error(body, status, _value(response, "request_id", str | None))


def _own_result(row: Request, result: bytes) -> bytes:
    """Hand a result on; one that says neither good nor bad was the last of several tries."""
    if _value(answerline.object_members(result), "type", str) in ("succeeded", "errored"):
        return result
    return _errored("api_error", f"{row.error_code}: {row.error_message}")


def _value(cut: dict[str, Raw], name: str, kind: Any) -> Any:
    return msgspec.json.decode(cut.get(name, _NULL), type=kind)


def _of_error(body: _Body, status: int, request_id: str | None = None) -> bytes:
    told = body.error or _Told()
    return _errored(error_type(status), told.message or told.code or "", request_id)


def _errored(kind: str, message: str, request_id: str | None = None) -> bytes:
    error = _Error(error=_Word(type=kind, message=message), request_id=request_id)
    return b'{"type":"errored","error":%b}' % msgspec.json.encode(error)


def error_type(status: int) -> str:
    """Return Anthropic's word for what an HTTP status says."""
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
