"""The built-in receiver: a webhook destination that keeps what it got and fails when it is told to.

Webhooks are POSTed to ``/receiver`` or anything below it, without a key: whoever can send there may. How it
answers and what came is asked and told under ``/sandbox/receiver``. It keeps the newest arrivals, in the data
folder, so that they outlive a restart. It judges nothing: what a signature is worth, a real receiver decides.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec
from aiohttp import web

from sandbox.errors import ApiError
from sandbox.replies import ENGINE, reply
from sandbox.store import Store

KEPT = 500
"""Arrivals; older ones are forgotten."""
_SHOWN = 20
_MOST_SHOWN = 200
_BODY_CHARACTERS = 2_000
_WELL = 200


class Manner(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the receiver answers: ``{"status": 503, "delay_s": 2}``."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = _WELL
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=120)] = 0.0
    """Real seconds before it answers."""


async def take(request: web.Request) -> web.Response:
    """``POST /receiver``: keep what came, answer as told."""
    store = request.app[ENGINE].store
    body = await request.read()
    manner = _manner(store)
    _keep(store, request, body, manner.status)
    await asyncio.sleep(manner.delay_s)
    return web.Response(status=manner.status)


async def show(request: web.Request) -> web.Response:
    """``GET /sandbox/receiver?limit=N``: how it answers, and the newest arrivals."""
    wanted = request.query.get("limit", str(_SHOWN))
    limit = min(int(wanted), _MOST_SHOWN) if wanted.isdecimal() else _SHOWN
    return _told(request.app[ENGINE].store, limit)


async def put(request: web.Request) -> web.Response:
    """``PUT /sandbox/receiver``: answer like this from now on."""
    try:
        manner = msgspec.json.decode(await request.read(), type=Manner)
    except msgspec.DecodeError as error:
        raise ApiError(400, str(error), code="invalid_receiver") from error
    store = request.app[ENGINE].store
    store.change("INSERT OR REPLACE INTO receiver VALUES (1, ?, ?)", manner.status, manner.delay_s)
    return _told(store, _SHOWN)


async def mend(request: web.Request) -> web.Response:
    """``DELETE /sandbox/receiver``: answer 200 again; what came is kept."""
    store = request.app[ENGINE].store
    store.change("DELETE FROM receiver")
    return _told(store, _SHOWN)


def _manner(store: Store) -> Manner:
    rows = store.query("SELECT status, delay_s FROM receiver")
    if not rows:
        return Manner()
    status, delay_s = msgspec.convert(rows[0], tuple[int, float])
    return Manner(status=status, delay_s=delay_s)


def _keep(store: Store, request: web.Request, body: bytes, answered: int) -> None:
    store.change(
        "INSERT INTO arrival (at, path, webhook_id, custom_id, is_replay, answered, size_bytes, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        time.time(),
        request.path,
        request.headers.get("webhook-id", ""),
        request.headers.get("x-batcher-custom-id", ""),
        request.headers.get("x-replay") == "1",
        answered,
        len(body),
        body.decode(errors="replace")[:_BODY_CHARACTERS],
    )
    store.change("DELETE FROM arrival WHERE seq <= (SELECT max(seq) FROM arrival) - ?", KEPT)


def _told(store: Store, limit: int) -> web.Response:
    names = ("at", "path", "webhook_id", "custom_id", "is_replay", "answered", "size_bytes", "body")
    rows = store.query(
        f"SELECT {', '.join(names)} FROM arrival ORDER BY seq DESC LIMIT ?",  # noqa: S608
        limit,
    )
    ((taken, refused),) = store.query(
        "SELECT count(*) FILTER (WHERE answered < 300), count(*) FILTER (WHERE answered >= 300) FROM arrival"
    )
    arrivals = [dict(zip(names, row, strict=True)) for row in rows]
    for arrival in arrivals:
        arrival["is_replay"] = bool(arrival["is_replay"])
    manner = _manner(store)
    return reply(
        {
            "object": "sandbox.receiver",
            "status": manner.status,
            "delay_s": manner.delay_s,
            "taken": taken,
            "refused": refused,
            "arrivals": arrivals,
        }
    )
