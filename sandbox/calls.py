"""Faults of calls: what goes wrong on the wire, before or after the work that was asked for.

``strike`` wraps a handler. It knows nothing of what the handler does; a call is described to the
rules by its route and, where there is one, its JSON body or the batch it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from sandbox.errors import INVALID, ApiError
from sandbox.faults import (
    CallRule,
    DropConnection,
    Hang,
    HttpError,
    RateLimit,
    TokenLimitAtCreation,
    TruncateDownload,
)
from sandbox.replies import refuse
from sandbox.rules import Subject

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HTML = (
    "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>"
    "\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)


async def strike(
    fault: CallRule, request: web.Request, handler: Handler, download: str | None
) -> web.StreamResponse:
    """Answer a call that a fault strikes. ``download`` is the path of the file it would bring."""
    if isinstance(fault, Hang):
        return await _hang(fault, request, handler)
    if isinstance(fault, TruncateDownload):
        return await (_truncate(fault, request, download) if download else handler(request))
    if isinstance(fault, DropConnection | HttpError) and fault.after_effect:
        await handler(request)
    if isinstance(fault, DropConnection):
        return _drop(request)
    return _refusal(fault, request)


def call_subject(route: str, body: bytes | None, batch: Mapping[str, object] | None) -> Subject:
    """Return a call as rules see it; ``batch`` is what is known of the batch it is about."""
    known: Mapping[str, object] = batch or {}
    if body:
        try:
            sent = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            sent = None
        known = {**known, **sent} if isinstance(sent, dict) else known
    model, endpoint, metadata = (known.get(name) for name in ("model", "endpoint", "metadata"))
    return Subject(
        route=route,
        body=body,
        model=model if isinstance(model, str) else None,
        endpoint=endpoint if isinstance(endpoint, str) else None,
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _retry_after(seconds: float | None) -> dict[str, str]:
    if seconds is None:
        return {}
    return {"retry-after": f"{seconds:g}", "retry-after-ms": f"{seconds * 1000:g}"}


def _refusal(fault: CallRule, request: web.Request) -> web.Response:
    if isinstance(fault, RateLimit):
        fault = HttpError(
            status=429,
            message=fault.message,
            error_type="rate_limit_error",
            code=fault.code,
            retry_after_s=fault.retry_after_s,
        )
    elif isinstance(fault, TokenLimitAtCreation):
        fault = HttpError(
            status=400,
            message="Enqueued token limit reached (sandbox).",
            error_type=INVALID,
            code="token_limit_exceeded",
        )
    if not isinstance(fault, HttpError):
        raise TypeError(f"no reply is known for {fault}")
    return _http_error(fault, request)


def _http_error(fault: HttpError, request: web.Request) -> web.Response:
    headers = _retry_after(fault.retry_after_s)
    if fault.style == "html":
        text = _HTML.format(status=fault.status)
        return web.Response(
            status=fault.status, text=text, content_type="text/html", headers=headers
        )
    if fault.style == "empty":
        return web.Response(status=fault.status, headers=headers)
    if fault.style == "malformed":
        broken = b'{"error": {"message": "The server had'
        return web.Response(
            status=fault.status, body=broken, content_type="application/json", headers=headers
        )
    error = ApiError(
        fault.status, fault.message, kind=fault.error_type, param=fault.param, code=fault.code
    )
    return refuse(request, error, headers=headers)


async def _hang(fault: Hang, request: web.Request, handler: Handler) -> web.StreamResponse:
    done = await handler(request) if fault.after_effect else None
    await asyncio.sleep(fault.seconds)
    if fault.then == "drop":
        return _drop(request)
    return done if done is not None else await handler(request)


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # reaches nobody: the connection is gone


async def _truncate(
    fault: TruncateDownload, request: web.Request, download: str
) -> web.StreamResponse:
    with open(download, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        left = int(size * fault.keep)
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        response.content_length = size
        await response.prepare(request)
        while left > 0:
            chunk = file.read(min(left, 65_536))
            left -= len(chunk)
            await response.write(chunk)
    if request.transport is not None:
        request.transport.close()  # what was sent still arrives; the rest never does
    return response
