"""JSON replies, and where handlers find the engine."""

from __future__ import annotations

from aiohttp import web

from sandbox.engine import Engine
from sandbox.results import encode

ENGINE = web.AppKey("engine", Engine)


def reply(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a JSON response."""
    return web.Response(
        status=status, body=encode(value), content_type="application/json", headers=headers
    )
