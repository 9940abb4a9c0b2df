"""/v1/messages/batches: create, list, retrieve, cancel, delete, results.

Handlers only. ``params`` are looked at when they are answered, as Anthropic does it: bad ones are
results of type ``errored``. What a caller may count on and what is our choice: docs/sandbox.md.
"""

from __future__ import annotations

import asyncio
import secrets
import string
from pathlib import Path
from typing import Any

from aiohttp import web

from sandbox import checks, lifecycle
from sandbox.batches import cancelled, draw
from sandbox.engine import Engine
from sandbox.errors import MESSAGES, ApiError
from sandbox.messages import intake, shapes
from sandbox.objects import Batch, StoredFile
from sandbox.replies import ENGINE, reply
from sandbox.rules import Subject
from sandbox.store import MESSAGE_BATCH, REQUESTS, new_file_id

_LETTERS = string.ascii_letters + string.digits
_MOST_SHOWN = 1000


async def create(request: web.Request) -> web.Response:
    """``POST /v1/messages/batches``."""
    engine = request.app[ENGINE]
    file_id = new_file_id()
    body, lines = (engine.store.path(f"{file_id}.{name}.part") for name in ("body", "lines"))
    limits = engine.book().scenario.limits
    try:
        await intake.receive(request, body, limits.message_bytes)
        taken = await asyncio.to_thread(intake.split, body, lines, limits.messages)
        batch = _keep(engine, taken, lines, file_id)
    except intake.Refused as refused:
        raise ApiError(400, str(refused)) from refused
    finally:
        body.unlink(missing_ok=True)
        lines.unlink(missing_ok=True)
    engine.wake()
    return reply(_show(request, batch))


async def index(request: web.Request) -> web.Response:
    """``GET /v1/messages/batches``: newest first; ``after_id`` goes on, ``before_id`` goes back."""
    engine = request.app[ENGINE]
    limit = checks.limit(request, default=20, most=_MOST_SHOWN)
    after, before = (request.query.get(name) for name in ("after_id", "before_id"))
    if after is not None and before is not None:
        raise ApiError(400, "Only one of before_id and after_id may be given")
    for edge in (after, before):
        if edge is not None and engine.store.batch(edge) is None:
            raise _not_found(edge)
    page = engine.store.batch_page(
        engine.clock.now(), MESSAGE_BATCH, after=after, before=before, limit=limit + 1
    )
    # The one too many is at the far end: the oldest, or going back the newest.
    kept = page[:limit] if before is None else page[-limit:]
    shown = [_show(request, batch) for batch in kept]
    return reply(shapes.list_object(shown, has_more=len(page) > limit))


async def retrieve(request: web.Request) -> web.Response:
    """``GET /v1/messages/batches/{id}``."""
    return reply(_show(request, find(request)))


async def cancel(request: web.Request) -> web.Response:
    """``POST /v1/messages/batches/{id}/cancel``: once more changes nothing."""
    batch = cancelled(request.app[ENGINE], lambda: find(request))
    if batch.is_final:
        raise ApiError(400, f"Batch {batch.id} cannot be canceled: it has ended.")
    return reply(_show(request, batch))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/messages/batches/{id}``: only what has ended."""
    batch = find(request)
    if not batch.is_final:
        raise ApiError(400, f"Batch {batch.id} cannot be deleted while it is processing.")
    request.app[ENGINE].store.delete_batch(batch)
    return reply({"id": batch.id, "type": "message_batch_deleted"})


async def results(request: web.Request) -> web.StreamResponse:
    """``GET /v1/messages/batches/{id}/results``: JSONL, in another order than the requests."""
    path = results_path(request)
    if path is None:
        raise ApiError(404, f"Batch {find(request).id} has no available results.")
    return web.FileResponse(path, headers={"content-type": "application/x-jsonl"})


def results_path(request: web.Request) -> Path | None:
    """Return where a batch's results are, None when there are none (yet, or any more)."""
    engine, batch = request.app[ENGINE], find(request)
    if batch.output_file_id is None or shapes.is_archived(batch, engine.clock.now()):
        return None
    return engine.store.path(batch.output_file_id)


def find(request: web.Request) -> Batch:
    """Return the batch that a call is about; raise ApiError when there is none."""
    batch_id = request.match_info["batch_id"]
    batch = request.app[ENGINE].store.batch(batch_id)
    if batch is None or not batch.id.startswith(MESSAGE_BATCH):
        raise _not_found(batch_id)
    return batch


def _keep(engine: Engine, taken: intake.Taken, lines: Path, file_id: str) -> Batch:
    now = engine.clock.now()
    drawn = draw(engine, Subject(endpoint=MESSAGES, model=taken.model))
    batch = Batch(
        id=MESSAGE_BATCH + "".join(secrets.choice(_LETTERS) for _ in range(24)),
        endpoint=MESSAGES,
        input_file_id=file_id,
        completion_window="24h",
        metadata=None,
        output_expires_after_s=shapes.RESULTS_KEPT_S,
        generation=engine.book().generation,
        drawn=drawn.numbers,
        created_at=now,
        listed_at=now + drawn.list_lag_s,
        due_at=now + drawn.durations.validating_s,
        expires_at=now + lifecycle.WINDOW_S,
        model=taken.model,
        total=taken.total,
        tokens=taken.tokens,
    )
    size = lines.stat().st_size
    lines.rename(engine.store.path(file_id))
    engine.store.add_file(
        StoredFile(
            id=file_id,
            filename=f"{batch.id}.jsonl",
            purpose=REQUESTS,
            size_bytes=size,
            created_at=now,
            expires_at=now + shapes.RESULTS_KEPT_S,
        )
    )
    engine.store.add_batch(batch)
    return batch


def _show(request: web.Request, batch: Batch) -> dict[str, Any]:
    engine = request.app[ENGINE]
    url = f"{request.scheme}://{request.host}{MESSAGES}/batches/{batch.id}/results"
    return shapes.batch_object(batch, engine.faults(batch), engine.clock.now(), url)


def _not_found(batch_id: str) -> ApiError:
    return ApiError(404, f"Message batch {batch_id} not found.")
