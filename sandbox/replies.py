"""JSON replies, refusals in the shape of the API that was called, and where the engine is."""

from __future__ import annotations

from aiohttp import web

from sandbox.engine import Engine
from sandbox.errors import INVALID, ApiError, anthropic_error_body, is_anthropic
from sandbox.rows import encode

_OPENAI_ONLY = (INVALID, "server_error")  # said for many statuses; Anthropic has a word for each

ENGINE = web.AppKey("engine", Engine)
REQUEST_ID = "request_id"
"""Where a call's id is kept: ``request[REQUEST_ID]``."""


def reply(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a JSON response."""
    return web.Response(
        status=status, body=encode(value), content_type="application/json", headers=headers
    )


def refuse(
    request: web.Request, error: ApiError, *, headers: dict[str, str] | None = None
) -> web.Response:
    """Return the error in OpenAI's shape, or in Anthropic's below /v1/messages."""
    body = error.body
    if is_anthropic(request.path):
        kind = None if error.kind in _OPENAI_ONLY else error.kind
        body = anthropic_error_body(
            error.status, error.message, request_id=request[REQUEST_ID], kind=kind
        )
    return reply(body, status=error.status, headers=headers)
