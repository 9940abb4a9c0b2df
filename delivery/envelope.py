"""What a client receives for a request: the provider's line with the client's own id, and our words.

The response and the error are spliced in as the bytes that came, never re-encoded. Used by delivery
and by the API for clients that pull, so both say the same.
"""

from __future__ import annotations

import logging

import msgspec
from msgspec import Raw

from batching.answerline import Members, members
from batching.models import Answer, Request

logger = logging.getLogger(__name__)


class Usage(msgspec.Struct, kw_only=True):
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
    cost: None = None


def render(request: Request, answer: Answer | None, metadata: bytes) -> bytes:
    """Return the envelope of an ended request as JSON.

    ``answer`` is the one of its present attempt, None when it ended without one: then ``error`` says
    why. ``metadata`` is the client's JSON object.
    """
    line = _members(request, answer)
    error = line.error
    if request.outcome in ("expired", "cancelled"):
        error = _raw(_Error(request.error_code, request.error_message))
    return msgspec.json.encode(
        Envelope(
            id=line.id,
            custom_id=request.custom_id,
            response=line.response,
            error=error,
            outcome=request.outcome,
            metadata=Raw(metadata),
            usage=_usage(answer),
        )
    )


def _members(request: Request, answer: Answer | None) -> Members:
    """Cut the answer; one that can't be cut is told as an error and stops no other result."""
    if answer is None:
        error = _Error(request.error_code, request.error_message)
        return Members(id=_raw(request.key), error=_raw(error))
    try:
        return members(bytes(answer.line))
    except (ValueError, RecursionError):
        logger.exception("answer unreadable", extra={"request": request.key})
        error = _Error("unreadable_answer", "the provider's line is stored and can't be cut")
        return Members(id=_raw(request.key), error=_raw(error))


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _usage(answer: Answer | None) -> Usage | None:
    if answer is None or (answer.input_tokens is None and answer.output_tokens is None):
        return None
    return Usage(
        input_tokens=answer.input_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        reasoning_tokens=answer.reasoning_tokens,
    )
