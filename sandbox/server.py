"""The HTTP server: which call goes where, and what every call goes through.

Outermost first: request ids, error shapes and counting; the key; the scenario's faults; the
handler. Calls are named here (``batches.create``); rules and statistics use these names.
"""

from __future__ import annotations

import logging
import secrets
import time
from datetime import UTC, datetime

from aiohttp import hdrs, web

from sandbox import batches, control, files, inbox, models
from sandbox.answers import ENDPOINTS
from sandbox.calls import Handler, call_subject, strike
from sandbox.engine import Engine
from sandbox.errors import INVALID, MESSAGES, ApiError, is_anthropic
from sandbox.messages import batches as message_batches
from sandbox.replies import ENGINE, REQUEST_ID, refuse, reply
from sandbox.scenario import Scenario

logger = logging.getLogger(__name__)
_RATE_LIMITS = {
    "requests": "1000", "tokens": "500000", "input-tokens": "400000", "output-tokens": "100000",
}  # fmt: skip
"""What Anthropic's side says may be asked each minute; it never runs short (a rule may say so)."""
API_KEY: web.AppKey[str | None] = web.AppKey("api_key")
_MESSAGE_BATCH = "/v1/messages/batches/{batch_id}"
_RECEIVER = "/receiver"
_LARGEST_JSON_BYTES = 64 * 1024 * 1024

ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("files.create", "POST", "/v1/files", files.create),
    ("files.list", "GET", "/v1/files", files.index),
    ("files.retrieve", "GET", "/v1/files/{file_id}", files.retrieve),
    ("files.content", "GET", "/v1/files/{file_id}/content", files.content),
    ("files.delete", "DELETE", "/v1/files/{file_id}", files.delete),
    ("batches.create", "POST", "/v1/batches", batches.create),
    ("batches.list", "GET", "/v1/batches", batches.index),
    ("batches.retrieve", "GET", "/v1/batches/{batch_id}", batches.retrieve),
    ("batches.cancel", "POST", "/v1/batches/{batch_id}/cancel", batches.cancel),
    ("models.list", "GET", "/v1/models", models.index),
    ("models.retrieve", "GET", "/v1/models/{model}", models.retrieve),
    ("messages.create", "POST", MESSAGES, models.direct),
    ("messages.batches.create", "POST", "/v1/messages/batches", message_batches.create),
    ("messages.batches.list", "GET", "/v1/messages/batches", message_batches.index),
    ("messages.batches.retrieve", "GET", _MESSAGE_BATCH, message_batches.retrieve),
    ("messages.batches.delete", "DELETE", _MESSAGE_BATCH, message_batches.delete),
    ("messages.batches.cancel", "POST", f"{_MESSAGE_BATCH}/cancel", message_batches.cancel),
    ("messages.batches.results", "GET", f"{_MESSAGE_BATCH}/results", message_batches.results),
    *(
        (path.removeprefix("/v1/").replace("/", "."), "POST", path, models.direct)
        for path in ENDPOINTS
    ),
    ("sandbox.scenario", "GET", "/sandbox/scenario", control.show_scenario),
    ("sandbox.scenario", "PUT", "/sandbox/scenario", control.put_scenario),
    ("sandbox.scenario", "DELETE", "/sandbox/scenario", control.delete_scenario),
    ("sandbox.scenarios", "GET", "/sandbox/scenarios", control.list_scenarios),
    ("sandbox.faults", "GET", "/sandbox/faults", control.list_faults),
    ("sandbox.receiver", "GET", "/sandbox/receiver", inbox.show),
    ("sandbox.receiver", "PUT", "/sandbox/receiver", inbox.put),
    ("sandbox.receiver", "DELETE", "/sandbox/receiver", inbox.mend),
    ("sandbox.arrival", "POST", _RECEIVER, inbox.take),
    ("sandbox.arrival", "POST", f"{_RECEIVER}/{{path:.*}}", inbox.take),
    ("sandbox.reset", "POST", "/sandbox/reset", control.reset),
    ("sandbox.clock", "GET", "/sandbox/clock", control.show_clock),
    ("sandbox.clock", "POST", "/sandbox/clock", control.move_clock),
    ("sandbox.stats", "GET", "/sandbox/stats", control.stats),
    ("sandbox.histories", "GET", "/sandbox/lines", control.histories),
    ("sandbox.lines", "GET", "/sandbox/batches/{batch_id}/lines", control.lines),
)
_NAMES = {(method, path): name for name, method, path, _handler in ROUTES}
_JSON_CALLS = frozenset(
    name for name, method, path, _ in ROUTES if method == "POST" and path in (*ENDPOINTS, MESSAGES)
) | {"batches.create"}


def application(engine: Engine, *, api_key: str | None, first: Scenario) -> web.Application:
    """Return the server; ``first`` is the scenario that a reset goes back to."""
    app = web.Application(
        middlewares=[_outermost, _check_key, _misbehave], client_max_size=_LARGEST_JSON_BYTES
    )
    app[ENGINE] = engine
    app[API_KEY] = api_key
    app[control.FIRST_SCENARIO] = first
    for _name, method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
    app.router.add_get("/", _front_page)
    return app


async def _front_page(_request: web.Request) -> web.Response:
    return reply({"object": "sandbox", "api": "/v1", "control": "/sandbox", "status": "ok"})


@web.middleware
async def _outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.monotonic()
    request[REQUEST_ID] = f"req_{secrets.token_hex(16)}"
    response = await _answered(request, handler)
    name = call_name(request)
    if name is not None and not name.startswith("sandbox."):
        is_gone = request.transport is None or request.transport.is_closing()
        request.app[ENGINE].store.count_call(name, "gone" if is_gone else str(response.status))
    if not response.prepared:
        response.headers.update(_headers(request, time.monotonic() - started))
    return response


def _headers(request: web.Request, took_s: float) -> dict[str, str]:
    """Return what both providers say beside every answer."""
    if not is_anthropic(request.path):
        return {
            "x-request-id": request[REQUEST_ID],
            "openai-version": "2020-10-01",
            "openai-organization": "org-sandbox",
            "openai-processing-ms": str(int(took_s * 1000)),
        }
    reset = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    limits = {
        f"anthropic-ratelimit-{name}-{part}": value
        for name, limit in _RATE_LIMITS.items()
        for part, value in (("limit", limit), ("remaining", limit), ("reset", reset))
    }
    return limits | {
        "request-id": request[REQUEST_ID],
        "anthropic-organization-id": "org-sandbox",
    }


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return the handler's response, or the reply that fits what it raised."""
    try:
        return await handler(request)
    except ApiError as error:
        return refuse(request, error)
    except web.HTTPException as error:
        return _http_exception(request, error)
    except ConnectionError:
        return web.Response()  # the client went away: nobody reads this
    except Exception:
        # The edge of the server: whatever is wrong inside, a client gets a provider's shape.
        logger.exception("call failed", extra={"path": request.path})
        message = "The sandbox failed; see its log."
        return refuse(request, ApiError(500, message, kind="server_error"))


@web.middleware
async def _check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    wanted = request.app[API_KEY]
    if f"{request.path}/".startswith(f"{_RECEIVER}/"):
        return await handler(request)  # a webhook carries a signature, never a key
    if request.path == "/" or (wanted is None and request.path.startswith("/sandbox/")):
        return await handler(request)
    if is_anthropic(request.path):
        _check_anthropic(request, wanted)
        return await handler(request)
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise ApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    if not _fits(given, wanted):
        shown = given.strip()[:4] + "***"
        raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
    return await handler(request)


def _check_anthropic(request: web.Request, wanted: str | None) -> None:
    """Check the key, as ``x-api-key`` or Bearer, and that the version is named."""
    scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    given = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
    if not given.strip():
        raise ApiError(401, "x-api-key header is required")
    if not _fits(given, wanted):
        raise ApiError(401, "invalid x-api-key")
    if "anthropic-version" not in request.headers:
        raise ApiError(400, "anthropic-version: header is required")


def _fits(given: str, wanted: str | None) -> bool:
    return wanted is None or secrets.compare_digest(given.strip().encode(), wanted.encode())


@web.middleware
async def _misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
    name, engine = call_name(request), request.app[ENGINE]
    if name is None or name.startswith("sandbox.") or not engine.book().has_call_rules:
        return await handler(request)
    body = await request.read() if name in _JSON_CALLS else None
    batch = engine.store.batch(request.match_info.get("batch_id", ""))
    known = (
        {"model": batch.model, "endpoint": batch.endpoint, "metadata": batch.metadata}
        if batch
        else None
    )
    tally = engine.store.tally()
    fault = engine.book().call_fault(call_subject(name, body, known), tally)
    engine.store.save_tally(tally)
    if fault is None:
        return await handler(request)
    return await strike(fault, request, handler, _download(request, name))


def call_name(request: web.Request) -> str | None:
    """Return the name of the call, None when there is no such call."""
    resource = request.match_info.route.resource
    return None if resource is None else _NAMES.get((request.method, resource.canonical))


def _download(request: web.Request, name: str) -> str | None:
    if name == "messages.batches.results":
        results = message_batches.results_path(request)
        return None if results is None else str(results)
    if name != "files.content":
        return None
    path = request.app[ENGINE].store.path(request.match_info["file_id"])
    return str(path) if path.exists() else None


def _http_exception(request: web.Request, error: web.HTTPException) -> web.Response:
    message = f"{error.reason}."
    if error.status == 404:
        message = f"Invalid URL ({request.method} {request.path})"
    elif error.status == 405:
        message = f"Not allowed to {request.method} on {request.path}."
    return refuse(request, ApiError(error.status, message, kind=INVALID))
