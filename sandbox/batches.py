"""/v1/batches: create, list, retrieve, cancel.

Handlers only. A batch is created at once, whatever its file holds: validation comes later, in
engine.py, as OpenAI does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sandbox import checks, lifecycle
from sandbox.engine import Engine
from sandbox.errors import ApiError
from sandbox.faults import ListLag
from sandbox.lines import peek_model
from sandbox.objects import Batch, batch_object, list_object
from sandbox.replies import ENGINE, reply
from sandbox.rules import Subject
from sandbox.scenario import Durations
from sandbox.store import BATCH, new_batch_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What the scenario has in store for a new batch."""

    numbers: list[int]
    """Of the rules that strike it."""
    list_lag_s: float
    """How long it is missing in lists."""
    durations: Durations


async def create(request: web.Request) -> web.Response:
    """``POST /v1/batches``."""
    engine = request.app[ENGINE]
    body = await checks.json_body(request)
    checks.batch_parameters(body)
    batch = _new(engine, body)
    engine.store.add_batch(batch)
    engine.wake()
    return reply(_show(engine, batch))


async def index(request: web.Request) -> web.Response:
    """``GET /v1/batches``: newest first."""
    engine = request.app[ENGINE]
    limit = checks.limit(request, default=20, most=100)
    after = request.query.get("after")
    if after is not None and engine.store.batch(after) is None:
        raise ApiError(404, f"No batch found with id '{after}'.", param="after")
    page = engine.store.batch_page(engine.clock.now(), BATCH, after=after, limit=limit + 1)
    shown = [_show(engine, batch) for batch in page[:limit]]
    return reply(list_object(shown, has_more=len(page) > limit))


async def retrieve(request: web.Request) -> web.Response:
    """``GET /v1/batches/{id}``."""
    return reply(_show(request.app[ENGINE], find(request)))


async def cancel(request: web.Request) -> web.Response:
    """``POST /v1/batches/{id}/cancel``: once more changes nothing."""
    engine = request.app[ENGINE]
    batch = cancelled(engine, lambda: find(request))
    if batch.is_final:
        raise ApiError(400, f"Cannot cancel a batch with status '{batch.status}'.")
    return reply(_show(engine, batch))


def cancelled(engine: Engine, look: Callable[[], Batch]) -> Batch:
    """Return the batch on its way to being cancelled, or as it ended before that."""
    batch = look()
    while not batch.is_final and batch.status != "cancelling":
        durations = engine.book(batch.generation).scenario.durations
        own = lifecycle.durations_for(durations, engine.faults(batch))
        lifecycle.cancel(batch, engine.clock.now(), own)
        if engine.store.save(batch):
            engine.wake()
            return batch
        batch = look()  # its next stage began in between
    return batch


def find(request: web.Request) -> Batch:
    """Return the batch that a call is about; raise ApiError when there is none."""
    batch_id = request.match_info["batch_id"]
    batch = request.app[ENGINE].store.batch(batch_id)
    if batch is None or not batch.id.startswith(BATCH):
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return batch


def draw(engine: Engine, subject: Subject) -> Drawn:
    """Draw the faults of a new batch, and count them as struck."""
    book, tally = engine.book(), engine.store.tally()
    numbers = book.draw_batch_faults(subject, tally)
    engine.store.save_tally(tally)
    faults = book.batch_faults(numbers)
    return Drawn(
        numbers=numbers,
        list_lag_s=next((fault.seconds for fault in faults if isinstance(fault, ListLag)), 0.0),
        durations=lifecycle.durations_for(book.scenario.durations, faults),
    )


def _new(engine: Engine, body: dict[str, Any]) -> Batch:
    now = engine.clock.now()
    metadata = checks.metadata(body.get("metadata"))
    subject = Subject(
        endpoint=body["endpoint"],
        metadata=metadata,
        model=peek_model(engine.store.path(body["input_file_id"])),
    )
    drawn = draw(engine, subject)
    return Batch(
        id=new_batch_id(),
        endpoint=body["endpoint"],
        input_file_id=body["input_file_id"],
        completion_window=body["completion_window"],
        metadata=metadata,
        output_expires_after_s=checks.output_kept_s(body.get("output_expires_after")),
        generation=engine.book().generation,
        drawn=drawn.numbers,
        created_at=now,
        listed_at=now + drawn.list_lag_s,
        due_at=now + drawn.durations.validating_s,
        expires_at=now + lifecycle.WINDOW_S,
    )


def _show(engine: Engine, batch: Batch) -> dict[str, Any]:
    return batch_object(batch, engine.faults(batch), engine.clock.now())
