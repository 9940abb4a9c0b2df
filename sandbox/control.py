"""/sandbox: change the scenario, move the clock, start anew, and see what was asked of the provider.

For tests and demonstrations. Nothing here exists at a real provider, and no fault strikes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from typing import TypeGuard, get_args

import msgspec
from aiohttp import web

from sandbox import scenario
from sandbox.checks import json_body
from sandbox.engine import Engine
from sandbox.errors import ApiError, invalid_type
from sandbox.faults import AnyRule, BatchRule, CallRule, LineRule, Rule
from sandbox.lines import LineRefusedError, numbered_lines, parse
from sandbox.objects import Batch
from sandbox.replies import ENGINE, reply
from sandbox.scenario import Scenario, ScenarioError
from sandbox.store import REQUESTS, Store

FIRST_SCENARIO = web.AppKey("first_scenario", Scenario)
_CALM = Scenario()
_STRIKES: dict[type[Rule], str] = {CallRule: "calls", BatchRule: "batches", LineRule: "lines"}
_AGAIN = (
    "SELECT custom_id, count(*) FROM line WHERE outcome = 'answered'"
    " GROUP BY custom_id HAVING count(*) > 1 ORDER BY custom_id"
)
_HISTORIES = (
    "SELECT line.custom_id, batch.id, line.outcome FROM line JOIN batch ON batch.seq = line.batch"
    " ORDER BY line.custom_id, line.batch, line.number"
)


async def show_scenario(request: web.Request) -> web.Response:
    """``GET /sandbox/scenario``: the one that stands, defaults included."""
    return _scenario_reply(request.app[ENGINE])


async def put_scenario(request: web.Request) -> web.Response:
    """``PUT /sandbox/scenario``: the body's, or ``?ready_made=NAME``."""
    engine = request.app[ENGINE]
    name = request.query.get("ready_made")
    try:
        if name is not None and name not in scenario.ready_made():
            raise ScenarioError(f"no ready-made scenario is called {name}")
        new = scenario.load(name) if name is not None else scenario.parse(await request.read())
    except ScenarioError as error:
        raise ApiError(400, str(error), code="invalid_scenario") from error
    engine.store.put_scenario(scenario.dump(new))
    return _scenario_reply(engine)


async def delete_scenario(request: web.Request) -> web.Response:
    """``DELETE /sandbox/scenario``: behave."""
    engine = request.app[ENGINE]
    engine.store.put_scenario(scenario.dump(_CALM))
    return _scenario_reply(engine)


async def list_scenarios(_request: web.Request) -> web.Response:
    """``GET /sandbox/scenarios``: the ready-made ones."""
    data = [
        {"name": name, "description": scenario.load(name).description}
        for name in scenario.ready_made()
    ]
    return reply({"object": "list", "data": data})


async def list_faults(_request: web.Request) -> web.Response:
    """``GET /sandbox/faults``: each fault by name, what it strikes, what happens."""
    kinds: tuple[type[Rule], ...] = get_args(AnyRule)
    data = [
        {
            "name": kind.__struct_config__.tag,
            "strikes": next(word for base, word in _STRIKES.items() if issubclass(kind, base)),
            "description": (kind.__doc__ or "").partition("\n")[0].replace("``", ""),
        }
        for kind in kinds
    ]
    return reply({"object": "list", "data": data})


async def reset(request: web.Request) -> web.Response:
    """``POST /sandbox/reset``: forget all files, batches and counts; back to the first scenario."""
    engine, first = request.app[ENGINE], request.app[FIRST_SCENARIO]

    def start_anew() -> None:
        engine.store.reset()
        engine.store.put_scenario(scenario.dump(first))

    await engine.in_thread(start_anew)
    return reply({"object": "sandbox.reset", "reset": True})


async def show_clock(request: web.Request) -> web.Response:
    """``GET /sandbox/clock``."""
    return _clock_reply(request.app[ENGINE])


async def move_clock(request: web.Request) -> web.Response:
    """``POST /sandbox/clock {"advance_s": N, "speed": N}``, one of them or both."""
    engine, asked = request.app[ENGINE], await json_body(request)
    speed = asked.get("speed", engine.clock.speed)
    seconds = asked.get("advance_s", 0 if "speed" in asked else None)
    if not _is_number(seconds) or seconds < 0:
        raise invalid_type("advance_s", "a number of seconds, 0 or more")
    if not _is_number(speed) or speed <= 0:
        raise invalid_type("speed", "a number, greater than 0")
    engine.clock.run_at(speed)
    engine.clock.advance(seconds)
    engine.wake()
    return _clock_reply(engine)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


async def stats(request: web.Request) -> web.Response:
    """``GET /sandbox/stats``: what was asked of this provider, and what it did twice."""
    engine = request.app[ENGINE]
    return reply(await asyncio.to_thread(_stats, engine.store))


async def histories(request: web.Request) -> web.StreamResponse:
    """``GET /sandbox/lines``: NDJSON, each ``custom_id`` with what became of it in each batch."""
    store = request.app[ENGINE].store
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    await response.prepare(request)
    rows = await asyncio.to_thread(store.query, _HISTORIES)
    for custom_id, same in itertools.groupby(rows, key=lambda row: row[0]):
        outcomes = [{"batch": batch, "outcome": outcome} for _, batch, outcome in same]
        shown = {"custom_id": custom_id, "outcomes": outcomes}
        await response.write(msgspec.json.encode(shown) + b"\n")
    await response.write_eof()
    return response


async def lines(request: web.Request) -> web.StreamResponse:
    """``GET /sandbox/batches/{id}/lines``: NDJSON, the input's lines and what became of them."""
    store = request.app[ENGINE].store
    batch = _find(store, request.match_info["batch_id"])
    path = store.path(batch.input_file_id)
    if not path.exists():
        raise ApiError(404, f"The bytes of '{batch.input_file_id}' are gone.")
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    await response.prepare(request)
    for number, raw in numbered_lines(path):
        await response.write(msgspec.json.encode(_line(store, batch, number, raw)) + b"\n")
    await response.write_eof()
    return response


def _find(store: Store, batch_id: str) -> Batch:
    batch = store.batch(batch_id)
    if batch is None:
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return batch


def _line(store: Store, batch: Batch, number: int, raw: bytes) -> dict[str, object]:
    rows = store.query("SELECT outcome FROM line WHERE batch = ? AND number = ?", batch.seq, number)
    shown: dict[str, object] = {"line": number, "outcome": rows[0][0] if rows else None}
    try:
        line = parse(number, raw)
    except LineRefusedError as refused:
        return shown | {"custom_id": None, "problem": refused.code}
    return shown | {
        "custom_id": msgspec.Raw(line.raw_custom_id),
        "body_sha256": hashlib.sha256(line.raw_body).hexdigest(),
        "body": msgspec.Raw(line.raw_body),
    }


def _stats(store: Store) -> dict[str, object]:
    again = _counts(store, _AGAIN)
    calls: dict[str, dict[str, object]] = {}
    for route, status, count in store.query("SELECT route, status, calls FROM call"):
        calls.setdefault(str(route), {})[str(status)] = count
    return {
        "calls": calls,
        "batches": {
            "created": store.query("SELECT count(*) FROM batch")[0][0],
            "by_status": _counts(store, "SELECT status, count(*) FROM batch GROUP BY status"),
        },
        "files": store.query(
            "SELECT count(*) FROM file WHERE NOT is_deleted AND purpose <> ?", REQUESTS
        )[0][0],
        "lines": {
            "by_outcome": _counts(store, "SELECT outcome, count(*) FROM line GROUP BY outcome"),
            "distinct": store.query("SELECT count(DISTINCT custom_id) FROM line")[0][0],
            "answered_again": len(again),
            "answered_again_ids": dict(itertools.islice(again.items(), 100)),
        },
        "most_enqueued_tokens": _counts(store, "SELECT model, tokens FROM fullest"),
        "rules": [
            {"rule": rule, "fitted": fitted, "struck": struck}
            for rule, fitted, struck in store.query("SELECT rule, fitted, struck FROM tally")
        ],
    }


def _counts(store: Store, sql: str) -> dict[str, int]:
    return dict(msgspec.convert(store.query(sql), list[tuple[str, int]]))


def _scenario_reply(engine: Engine) -> web.Response:
    return reply(msgspec.Raw(scenario.dump(engine.book().scenario)))


def _clock_reply(engine: Engine) -> web.Response:
    return reply({"now": engine.clock.now(), "speed": engine.clock.speed})
