"""Validated lines become pending requests. Append only: no batch is read, locked or counted here.

``accept`` takes a chunk of lines of one project in one transaction and says for each whether it is
new, known already, or refused. Called by the JSON API and the RabbitMQ intake; packing takes over
from there. A 202 is said by the caller after this returned, so after the commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import OperationalError, connection, transaction

from batching import tokens
from batching.addressing import Addressing, LaneRoom, Unknown
from batching.history import log_first_state
from batching.lifecycle import Actor
from batching.limits import line_bytes
from batching.models import ApiKey, Project, Request, RequestBody, Submission
from batching.models.keys import new_request_key
from batching.overrides import effective
from batching.permits import Permit
from batching.staging import BYTES, INTEGER, TEXT, TIME, TRUTH, sql_value, stage
from batching.tokens import Estimate
from batching.wire import Line

_DEADLOCK_RETRIES = 5
_STAGED = {
    "place": INTEGER,
    "key": TEXT,
    "custom_id": TEXT,
    "fingerprint": TEXT,
    "lane_id": INTEGER,
    "destination_id": INTEGER,
    "priority": INTEGER,
    "seal_by": TIME,
    "deliver_by": TIME,
    "size_bytes": INTEGER,
    "token_estimate": INTEGER,
    "is_token_exact": TRUTH,
    "body": BYTES,
    "metadata": BYTES,
}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The request that stands for a line: made by it, or by the same line sent earlier."""

    key: str
    custom_id: str
    state: str
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Why a line was not taken; ``pointer`` is the JSON pointer of the member at fault."""

    code: str
    detail: str
    pointer: str


def accept(
    project: Project,
    lines: Sequence[Line],
    *,
    submission: Submission | None = None,
    scope: str = "",
    key: ApiKey | None = None,
    by: Actor | None = None,
    now: datetime,
) -> list[Accepted | Rejected]:
    """Store a chunk of lines (up to some thousands) and return one answer a line, in their order.

    The same custom_id with the same endpoint and body is the first request again; with another body
    it is refused as ``duplicate_custom_id``. ``scope`` is where custom_ids are unique: empty, in the
    project; else in the client's batch of that key. ``key`` is the API key that asks, or the submission's:
    what it may not ask for is refused. One transaction: all that is accepted is stored when
    this returns. Two chunks that name the same ids in another order may collide on PostgreSQL;
    outside an open transaction that is tried again here.
    """
    by = by or Actor(name="intake")
    key = key or (submission.api_key if submission else None)
    permit = Permit(key) if key else None
    sizes = _sizes(lines)
    tries = 1 if connection.in_atomic_block else _DEADLOCK_RETRIES
    for left in range(tries - 1, -1, -1):
        try:
            with transaction.atomic():
                return _accept(_Origin(project, submission, scope, by, permit), lines, sizes, now)
        except OperationalError as error:
            if not left or "deadlock" not in str(error):
                raise
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Origin:
    """Where a chunk of lines comes from."""

    project: Project
    submission: Submission | None
    scope: str
    by: Actor
    permit: Permit | None


def _sizes(lines: Sequence[Line]) -> list[Estimate]:
    """Return the tokens of each line; done before any transaction, for it is what takes longest."""
    return tokens.estimates(lines, margin=1 + effective("BATCHER_TOKEN_MARGIN_PERCENT") / 100)


def _accept(
    origin: _Origin, lines: Sequence[Line], sizes: Sequence[Estimate], now: datetime
) -> list[Accepted | Rejected]:
    answers: dict[int, Accepted | Rejected] = {}
    addressing = Addressing(origin.project, origin.permit)
    rows = list(_staged(zip(lines, sizes, strict=True), addressing, answers, now))
    stage("intake_line", _STAGED, rows, key="key")
    if len(answers) < len(lines):
        _insert(origin, now)
        answers |= _matched(origin, lines)
    return [answers[place] for place in range(len(lines))]


def _staged(
    lines: Iterable[tuple[Line, Estimate]],
    addressing: Addressing,
    answers: dict[int, Accepted | Rejected],
    now: datetime,
) -> Iterator[Sequence[Any]]:
    """Yield a row for each line that can be sent; note in ``answers`` why another can't."""
    default_wait = timedelta(seconds=effective("BATCHER_MAX_WAIT_SECONDS"))
    for place, (line, tokens_) in enumerate(lines):
        try:
            room, destination_id, size = _placed(line, tokens_, addressing)
        except Unknown as error:
            answers[place] = Rejected(code=error.code, detail=error.detail, pointer=error.pointer)
            continue
        wait = default_wait if line.max_wait_s is None else timedelta(seconds=line.max_wait_s)
        yield (
            place,
            new_request_key(),
            line.custom_id,
            fingerprint(line),
            room.lane_id,
            destination_id,
            line.priority,
            now + wait,
            line.deliver_by,
            size,
            tokens_.tokens,
            tokens_.is_exact,
            line.body,
            line.metadata,
        )


def _placed(
    line: Line, tokens_: Estimate, addressing: Addressing
) -> tuple[LaneRoom, int | None, int]:
    """Return a line's lane, destination and bytes. Raises Unknown when it can't be sent."""
    room = addressing.lane(line)
    destination_id = addressing.destination(line)
    size = line_bytes(line.url, line.body)
    _check_fits(room, size, tokens_.tokens)
    return room, destination_id, size


class Check:
    """Tells whether lines of one project would be taken, without storing them.

    Lanes and destinations are made on first use all the same: they are what makes a line possible.
    """

    def __init__(self, project: Project, key: ApiKey | None = None) -> None:
        self._addressing = Addressing(project, Permit(key) if key else None)

    def problem(self, line: Line) -> Rejected | None:
        """Return why the line would be refused; None when it would be taken."""
        try:
            _placed(line, _sizes([line])[0], self._addressing)
        except Unknown as error:
            return Rejected(code=error.code, detail=error.detail, pointer=error.pointer)
        return None


def _check_fits(room: LaneRoom, size: int, token_count: int) -> None:
    """Refuse a line that no batch of its lane could ever hold."""
    most = min(room.limits.max_line_bytes, room.limits.max_bytes)
    if size > most:
        raise Unknown(
            "validation_error", f"the line has {size:,} bytes; its lane takes {most:,}", "/body"
        )
    if token_count > room.limits.max_tokens:
        raise Unknown(
            "validation_error",
            f"about {token_count:,} tokens; its lane may enqueue {room.limits.max_tokens:,}",
            "/body",
        )


def fingerprint(line: Line) -> str:
    """Return what tells a line sent twice from another one with the same custom_id."""
    return hashlib.sha256(line.url.encode() + b"\n" + line.body).hexdigest()


def _insert(origin: _Origin, now: datetime) -> None:
    """Make requests, bodies and first log rows of all staged lines whose custom_id is free."""
    request, body = Request._meta.db_table, RequestBody._meta.db_table
    at = sql_value(now)
    new = f"SELECT r.id, r.state FROM {request} r JOIN intake_line s ON s.key = r.key"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {request} (key, custom_id, fingerprint, lane_id, destination_id, priority,"  # noqa: S608
            " seal_by, deliver_by, size_bytes, token_estimate, is_token_exact, project_id, scope, submission_id, state,"
            " state_changed_at, created_at, attempt, error_code, error_message, fence, tries, replays)"
            " SELECT key, custom_id, fingerprint, lane_id, destination_id, priority, seal_by,"
            " deliver_by, size_bytes, token_estimate, is_token_exact, %s, %s, %s, 'pending', %s, %s, 1, '', '', 0, 0, 0"
            " FROM intake_line WHERE true ORDER BY place"
            " ON CONFLICT (project_id, custom_id, scope) DO NOTHING",
            [
                origin.project.pk,
                origin.scope,
                origin.submission.pk if origin.submission else None,
                at,
                at,
            ],
        )
        if cursor.rowcount == 0:
            return
        cursor.execute(
            f"INSERT INTO {body} (request_id, body, metadata)"  # noqa: S608
            f" SELECT r.id, s.body, s.metadata FROM {request} r JOIN intake_line s ON s.key = r.key"
        )
    log_first_state(new, [], model=Request, by=origin.by, reason="accepted", now=now)


def _matched(origin: _Origin, lines: Sequence[Line]) -> dict[int, Accepted | Rejected]:
    """Return, for each staged line, the request that now holds its custom_id.

    Looked up line by line in the unique index: as a join, right after a bulk load, the planner
    believes that the project has no request yet and compares each with each.
    """
    request = Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT f.place, r.key, r.state, r.key = f.key, r.fingerprint = f.fingerprint FROM"  # noqa: S608
            f" (SELECT s.place, s.key, s.fingerprint, (SELECT id FROM {request} WHERE project_id = %s"
            " AND scope = %s AND custom_id = s.custom_id) AS request_id FROM intake_line s) f"
            f" JOIN {request} r ON r.id = f.request_id",
            [origin.project.pk, origin.scope],
        )
        rows = cursor.fetchall()
    return {
        place: _answer(lines[place].custom_id, key, state, is_new=bool(new), is_same=bool(same))
        for place, key, state, new, same in rows
    }


def _answer(
    custom_id: str, key: str, state: str, *, is_new: bool, is_same: bool
) -> Accepted | Rejected:
    if is_same:
        return Accepted(key=key, custom_id=custom_id, state=state, is_new=is_new)
    return Rejected(
        code="duplicate_custom_id",
        detail=f"another request of this project, {key}, has this custom_id and another endpoint or body",
        pointer="/custom_id",
    )
