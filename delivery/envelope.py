"""What a client receives for a request: the provider's line with the client's own id, and our words.

The response and the error are spliced in as the bytes that came, never re-encoded. Used by delivery
and by the API for clients that pull, so both say the same. What is too large for a destination is told thin:
without the response's body, and with the place, digest and size of the whole. The same request gives the same
bytes every time, so nothing needs to be stored twice.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from batching.answerline import NULL, Members, members
from batching.costs import dollars

logger = logging.getLogger(__name__)

_ERROR_KEPT_BYTES: Final = 8 * 1024


class Ended(Protocol):
    """What an envelope tells of a request that has ended: a Request, or a row that was read like one."""

    @property
    def key(self) -> str: ...  # as the model says
    @property
    def custom_id(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def error_code(self) -> str: ...
    @property
    def error_message(self) -> str: ...
    @property
    def cost_nano(self) -> int | None: ...


class Told(Protocol):
    """What an envelope tells of the answer: an Answer, or a row that was read like one."""

    @property
    def line(self) -> bytes | memoryview | None: ...
    @property
    def status_code(self) -> int | None: ...
    @property
    def input_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that the provider counted; null where it did not say."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None


class _Error(msgspec.Struct):
    code: str
    message: str


class Envelope(msgspec.Struct, kw_only=True):
    """The JSON that is delivered."""

    id: Raw
    custom_id: str
    response: Raw
    error: Raw
    outcome: str
    metadata: Raw
    usage: Usage | None
    cost: str | None = None
    """In US$, as decimal digits, all attempts together; null where the price or the usage is unknown."""


class ThinEnvelope(Envelope, kw_only=True):
    """What is delivered when the whole is larger than the destination takes."""

    result_url: str
    """Answers the whole, to a key of the project that may read."""
    sha256: str
    """Of the whole, hex."""
    size_bytes: int
    """Of the whole."""


class _Head(msgspec.Struct):
    """A response without its body."""

    status_code: int | None = None
    request_id: Raw = NULL
    body: Raw = NULL


def render(request: Ended, answer: Told | None, metadata: bytes) -> bytes:
    """Return the envelope of an ended request as JSON.

    ``answer`` is the one of its present attempt, None when it ended without one: then ``error`` says
    why. ``metadata`` is the client's JSON object.
    """
    return msgspec.json.encode(_envelope(request, answer, metadata))


def render_within(
    most_bytes: int, url: str, request: Ended, answer: Told | None, metadata: bytes
) -> bytes:
    """Return what `render` does, or the thin envelope when that is more than ``most_bytes``.

    ``url`` is where the whole can be fetched.
    """
    envelope = _envelope(request, answer, metadata)
    whole = msgspec.json.encode(envelope)
    if len(whole) <= most_bytes:
        return whole
    members_ = msgspec.structs.asdict(envelope)
    members_["response"] = _head(envelope.response, answer)
    if len(bytes(envelope.error)) > _ERROR_KEPT_BYTES:
        members_["error"] = _raw(_Error(request.error_code, request.error_message))
    told = ThinEnvelope(
        **members_,
        result_url=url,
        sha256=hashlib.sha256(whole).hexdigest(),
        size_bytes=len(whole),
    )
    return msgspec.json.encode(told)


def _envelope(request: Ended, answer: Told | None, metadata: bytes) -> Envelope:
    line = _members(request, answer)
    error = line.error
    if request.outcome in ("expired", "cancelled"):
        error = _raw(_Error(request.error_code, request.error_message))
    return Envelope(
        id=line.id,
        custom_id=request.custom_id,
        response=line.response,
        error=error,
        outcome=request.outcome,
        metadata=Raw(metadata),
        usage=_usage(answer),
        cost=dollars(request.cost_nano),
    )


def _head(response: Raw, answer: Told | None) -> Raw:
    """Return a response without its body; one that can't be read so keeps its status alone."""
    try:
        head = msgspec.json.decode(response, type=_Head | None)
    except msgspec.DecodeError:
        head = _Head(status_code=answer.status_code if answer else None)
    if head is not None:
        head.body = NULL
    return _raw(head)


def _members(request: Ended, answer: Told | None) -> Members:
    """Cut the answer; one that can't be cut is told as an error and stops no other result."""
    if answer is None:
        error = _Error(request.error_code, request.error_message)
        return Members(id=_raw(request.key), error=_raw(error))
    try:
        return members(bytes(answer.line or b""))
    except (ValueError, RecursionError):
        logger.exception("answer unreadable", extra={"request": request.key})
        error = _Error("unreadable_answer", "the provider's line is stored and can't be cut")
        return Members(id=_raw(request.key), error=_raw(error))


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _usage(answer: Told | None) -> Usage | None:
    if answer is None or (answer.input_tokens is None and answer.output_tokens is None):
        return None
    return Usage(
        input_tokens=answer.input_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        reasoning_tokens=answer.reasoning_tokens,
    )
