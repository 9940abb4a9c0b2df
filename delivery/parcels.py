"""The messages of claimed results: read in one question for each group, made by ``envelope``.

The due queue's hot reading: nothing here changes a row. Rows come as plain tuples, for a model instance costs more
than all the rest of a message. ``due`` gives these names on; ``dispatch`` calls ``groups`` and ``load``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from batching.lifecycle import outcome_of
from batching.models import Answer, Destination, Request, RequestBody
from batching.overrides import effective
from batching.staging import listed
from delivery.envelope import render_within
from delivery.outcome import Message

_GROUP_ROWS, _GROUP_BYTES = 500, 8 * 1024 * 1024
_PLAIN_HEADER = re.compile(r"[A-Za-z0-9!#$&'()*+,/:;=?@\[\]\-._~ ]*")
_HEADER_SAFE = "!#$&'()*+,/:;=?@[]-._~ "


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One result that is ours to send until its lease ends."""

    request_id: int
    destination_id: int
    fence: int
    number: int
    """Which try this is, from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A claimed result with its bytes, ready to be sent."""

    claim: Claim
    message: Message
    is_replay: bool


_SIZES = """
SELECT r.id, length(a.line) FROM {request} r
JOIN {answer} a ON a.request_id = r.id AND a.attempt = r.attempt WHERE r.id IN ({those})
"""


def groups(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Cut claims into groups that are small enough, in rows and in bytes, to be held in memory."""
    sizes: dict[int, int] = dict(_read(_SIZES, [c.request_id for c in claims]))
    group: list[Claim] = []
    held = 0
    for one in claims:
        group.append(one)
        held += sizes.get(one.request_id) or 0
        if len(group) >= _GROUP_ROWS or held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


class _Result(NamedTuple):
    """A request with the answer of its present attempt; ``line`` is None when there is none."""

    id: int
    key: str
    custom_id: str
    attempt: int
    replays: int
    state: str
    error_code: str
    error_message: str
    cost_nano: int | None
    metadata: bytes | None
    line: bytes | None
    status_code: int | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None

    @property
    def outcome(self) -> str:
        return outcome_of(self.state)


_RESULTS = """
SELECT r.id, r.key, r.custom_id, r.attempt, r.replays, r.state, r.error_code, r.error_message, r.cost_nano,
    b.metadata, a.line, a.status_code, a.input_tokens, a.cached_tokens, a.output_tokens, a.reasoning_tokens
FROM {request} r
LEFT JOIN {body} b ON b.request_id = r.id
LEFT JOIN {answer} a ON a.request_id = r.id AND a.attempt = r.attempt
WHERE r.id IN ({those})
"""
"""Columns in the order of `_Result`."""


def load(claims: Sequence[Claim]) -> list[Parcel]:
    """Read the claimed results and make the messages to be sent; one that was deleted is left out."""
    rows = {row[0]: _Result(*row) for row in _read(_RESULTS, [c.request_id for c in claims])}
    most_bytes = _inline_limits({c.destination_id for c in claims})
    return [
        Parcel(
            claim=one,
            message=_message(row, most_bytes.get(one.destination_id, 0)),
            is_replay=row.replays > 0,
        )
        for one in claims
        if (row := rows.get(one.request_id)) is not None
    ]


def _read(sql: str, request_ids: Sequence[int]) -> list[tuple[Any, ...]]:
    those, ids = listed(request_ids)
    tables = {"request": Request, "answer": Answer, "body": RequestBody}
    names = {name: model._meta.db_table for name, model in tables.items()}
    with connection.cursor() as cursor:
        cursor.execute(sql.format(those=those, **names), [ids])
        return list(cursor.fetchall())


def message_id(request: Request | _Result) -> str:
    """Return the id of a result: the same over all tries and replays, another for another attempt."""
    return f"{request.key}-{request.attempt}"


def _inline_limits(destination_ids: set[int]) -> dict[int, int]:
    """Return for each destination how many bytes a message to it may have before it is sent thin."""
    usual = {
        Destination.Type.WEBHOOK: effective("BATCHER_WEBHOOK_MAX_INLINE_BYTES"),
        Destination.Type.RABBITMQ: effective("BATCHER_RABBITMQ_MAX_INLINE_BYTES"),
    }
    places = Destination.objects.filter(pk__in=destination_ids)
    return {
        pk: most or usual[Destination.Type(kind)]
        for pk, kind, most in places.values_list("pk", "type", "max_inline_bytes")
    }


def _message(row: _Result, most_bytes: int) -> Message:
    headers = [
        ("x-batcher-request-id", row.key),
        ("x-batcher-custom-id", _in_a_header(row.custom_id)),
    ]
    if row.replays:
        headers.append(("x-replay", "1"))
    answer = None if row.line is None else row
    body = render_within(most_bytes, result_url(row), row, answer, row.metadata or b"{}")
    return Message(id=message_id(row), body=body, headers=tuple(headers))


def _in_a_header(custom_id: str) -> str:
    if _PLAIN_HEADER.fullmatch(custom_id):
        return custom_id  # as nearly all are
    return quote(custom_id, safe=_HEADER_SAFE)


def result_url(request: Request | _Result) -> str:
    """Return where a key of its project can fetch the whole result of the request's present attempt."""
    base = settings.BATCHER_PUBLIC_URL or settings.BATCHER_URL
    return f"{base}/api/requests/{request.key}/result?attempt={request.attempt}"
