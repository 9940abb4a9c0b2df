"""How a chunk of the transition log, or of the answers, is counted: one statement each, along the primary key.

The rows it joins are found one by one by their keys, so a chunk costs the same in a table of any size.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django_fsm_log.models import StateLog

from batching import costs
from batching.models import Answer, Lane, Request
from batching.providers.base import Usage
from batching.tallying import ACCEPTED, ENDED, MOVED, SPENT, Counted, Found, Source, Spent

_UNKNOWN = "unknown"
_COST = "COALESCE(a.cost_nano, CASE WHEN a.attempt = 1 AND r.attempt = 1 THEN r.cost_nano END)"
"""Answers from before their own cost was noted: that of their request, when they are its only one."""


def minute_of(column: str) -> str:
    """Return SQL for the minute (UTC) of a time; ``as_moment`` reads it."""
    if connection.vendor == "postgresql":
        return f"date_trunc('minute', {column})"
    return f"substr({column}, 1, 16)"


def as_moment(value: Any) -> datetime:
    """Return what ``minute_of`` selected as a time."""
    if isinstance(value, str):
        return datetime.strptime(value, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    moment: datetime = value
    return moment


def rows_of(sql: str, params: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return what a statement selects."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(params))
        return list(cursor.fetchall())


def _read_moves(after: int, upto: int) -> Found:
    """Count the moves of requests, and their bad ends by error."""
    kind = ContentType.objects.get_for_model(Request).pk
    minute, log = minute_of("l.timestamp"), StateLog._meta.db_table
    where = "l.id > %s AND l.id <= %s AND l.content_type_id = %s"
    moves = rows_of(
        f"SELECT {minute}, COALESCE(l.source_state, ''), l.state, COUNT(*), MIN(l.object_id),"  # noqa: S608  # our names
        f" MAX(l.object_id) FROM {log} l WHERE {where} GROUP BY 1, 2, 3",
        [after, upto, kind],
    )
    ends = rows_of(
        f"SELECT {minute}, l.state, COALESCE(r.error_code, ''), COUNT(*) FROM {log} l"  # noqa: S608  # our names
        f" LEFT JOIN {Request._meta.db_table} r ON r.id = l.object_id WHERE {where}"
        " AND l.state IN ('failed', 'expired', 'cancelled')"
        # What stays in its state was only noted: a dead letter that was discarded.
        " AND (l.source_state IS NULL OR l.source_state <> l.state) GROUP BY 1, 2, 3",
        [after, upto, kind],
    )
    return Found(counted=[*map(_move, moves), *map(_end, ends)])


def _move(row: tuple[Any, ...]) -> Counted:
    at, source, state, count, first, last = row
    name = f"{source}>{state}"
    bounds = {"first_id": first, "last_id": last} if name == ACCEPTED else {}
    return Counted(minute=as_moment(at), measure=MOVED, name=name, count=count, **bounds)


def _end(row: tuple[Any, ...]) -> Counted:
    at, state, code, count = row
    name = f"{state}:{code or _UNKNOWN}"
    return Counted(minute=as_moment(at), measure=ENDED, name=name, count=count)


def _read_answers(after: int, upto: int) -> Found:
    """Count what answers used and cost, lane by lane and project by project."""
    minute = minute_of("a.received_at")
    rows = rows_of(
        f"SELECT {minute}, r.project_id, r.lane_id, a.batch_id IS NOT NULL, COUNT(*),"  # noqa: S608  # our names
        f" COUNT({_COST}), COALESCE(SUM(a.input_tokens), 0), COALESCE(SUM(a.cached_tokens), 0),"
        " COALESCE(SUM(a.output_tokens), 0), COALESCE(SUM(a.reasoning_tokens), 0),"
        f" COALESCE(SUM({_COST}), 0) FROM {Answer._meta.db_table} a"
        f" JOIN {Request._meta.db_table} r ON r.id = a.request_id"
        " WHERE a.id > %s AND a.id <= %s GROUP BY 1, 2, 3, 4",
        [after, upto],
    )
    lanes = Lane.objects.select_related("account").in_bulk({row[2] for row in rows})
    groups = [(as_moment(row[0]), _spent(row, lanes)) for row in rows]
    counted = [
        Counted(minute=minute, measure=SPENT, name=name, count=count)
        for minute, one in groups
        for name, count in (
            ("cost", one.cost_nano), ("ordinary", one.ordinary_nano),
            ("input", one.input_tokens), ("output", one.output_tokens),
        )
        if count
    ]  # fmt: skip
    return Found(counted=counted, spent=[one for _, one in groups])


def _spent(row: tuple[Any, ...], lanes: dict[int, Lane]) -> Spent:
    at, project, lane, is_batch, answers, priced, *tokens, cost = row
    moment = as_moment(at)
    total = Usage(**dict(zip(_TOKENS, map(int, tokens), strict=True)))
    ordinary = int(cost)
    if is_batch and cost and lane in lanes:
        ordinary = _ordinary(int(cost), total, answers, lanes[lane], moment)
    return Spent(
        day=moment.astimezone(UTC).date(),
        project_id=project,
        lane_id=lane,
        is_batch=bool(is_batch),
        answers=answers,
        unpriced=answers - priced,
        cost_nano=int(cost),
        ordinary_nano=ordinary,
        **{name: int(count) for name, count in zip(_TOKENS, tokens, strict=True)},
    )


_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def _ordinary(cost: int, total: Usage, answers: int, lane: Lane, at: datetime) -> int:
    """Return what answers of this cost would have cost one by one: as the mean one's prices are to each other."""
    mean = Usage(**{name: (getattr(total, name) or 0) // answers for name in _TOKENS})
    in_batch = costs.price(mean, costs.tariff(lane, at))
    alone = costs.price(mean, costs.tariff(lane, at, is_batch=False))
    if not in_batch or alone is None:
        return cost
    return cost * alone // in_batch


MOVES = Source(name="moves", model=StateLog, read=_read_moves)
ANSWERS = Source(name="answers", model=Answer, read=_read_answers)
ALL = (MOVES, ANSWERS)
