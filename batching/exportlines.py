"""What an export says of a request: its columns, and its line as JSON or CSV.

`exports` calls ``lines``. Bodies and answers go into NDJSON as the bytes that came, spliced and not decoded; a cell of
a CSV that a spreadsheet would take for a formula is disarmed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.db.models import QuerySet
from django.db.models.functions import Length

from batching.costs import dollars
from batching.models import Answer, Request, RequestBody

BYTES_AT_ONCE: Final = 8_000_000
"""Of bodies and answers together that are in memory at once; one line may be longer."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that spreadsheets execute (OWASP, CSV Injection)."""


_BIG: Final = (
    "batch__provider_object", "batch__last_error", "submission__line_errors", "submission__metadata",
    "submission__delivery_config",
)  # fmt: skip
"""Columns of what requests belong to that no line needs."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of one request when its line is written."""

    request: Request
    answer: Answer | None
    """Its last; without its line unless that is asked for."""
    body: bytes = b""
    metadata: bytes = b""
    line: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column."""

    name: str
    of: Callable[[Told], Any]
    is_usual: bool = True
    is_payload: bool = False
    """Holds what a client sent or a provider answered."""


def _plain(name: str, path: str = "", *, is_usual: bool = True) -> Column:
    """Return a column that is an attribute of the request; a missing link on the way is nothing."""

    def of(told: Told) -> Any:
        value: Any = told.request
        for part in (path or name).split("."):
            value = None if value is None else getattr(value, part)
        return value

    return Column(name=name, of=of, is_usual=is_usual)


def _answered(name: str) -> Column:
    return Column(name=name, of=lambda told: getattr(told.answer, name, None))


COLUMNS: Final = (
    _plain("custom_id"),
    _plain("id", "key"),
    _plain("project", "project.name"),
    _plain("state"),
    Column(name="outcome", of=lambda told: told.request.outcome or "open"),
    _plain("model", "lane.model"),
    _plain("endpoint", "lane.endpoint"),
    _plain("account", "lane.account.name", is_usual=False),
    _plain("batch", "batch.key"),
    _plain("provider_batch", "batch.provider_batch_id", is_usual=False),
    _plain("submission", "submission.key", is_usual=False),
    _plain("destination", "destination.key", is_usual=False),
    _plain("attempt"),
    _plain("priority", is_usual=False),
    _plain("created_at"),
    _plain("settled_at"),
    _plain("delivered_at"),
    _plain("given_up_at", "dead_at", is_usual=False),
    _plain("given_up_because", "dead_cause", is_usual=False),
    _plain("discarded_at", is_usual=False),
    _plain("delivery_tries", "tries", is_usual=False),
    _plain("token_estimate", is_usual=False),
    _answered("status_code"),
    _answered("input_tokens"),
    _answered("cached_tokens"),
    _answered("output_tokens"),
    _answered("reasoning_tokens"),
    Column(name="cost", of=lambda told: dollars(told.request.cost_nano)),
    _plain("error_code"),
    _plain("error_message"),
    Column(name="metadata", of=lambda told: told.metadata, is_usual=False, is_payload=True),
    Column(name="body", of=lambda told: told.body, is_usual=False, is_payload=True),
    Column(name="answer", of=lambda told: told.line, is_usual=False, is_payload=True),
)
BY_NAME: Final = {column.name: column for column in COLUMNS}


def header(form: str, names: Sequence[str]) -> bytes:
    """Return what stands before the first line."""
    return _csv(names) if form == "csv" else b""


def lines(ids: Sequence[int], names: Sequence[str], form: str) -> Iterator[tuple[int, bytes]]:
    """Yield ``(id, line)`` for those of these requests that are there still, by rising id."""
    columns = [BY_NAME[name] for name in names]
    write = _csv_line if form == "csv" else _json_line
    for told in _told(ids, with_payload=any(column.is_payload for column in columns)):
        yield told.request.pk, write(columns, told)


def _told(ids: Sequence[int], *, with_payload: bool) -> Iterator[Told]:
    links = ("project", "lane__account", "batch", "submission", "destination")
    rows = Request.objects.filter(pk__in=ids).select_related(*links).defer(*_BIG)
    requests = list(rows.order_by("pk"))
    answers = _last(Answer.objects.filter(request__in=ids).annotate(size=Length("line")))
    if not with_payload:
        yield from (Told(request=row, answer=answers.get(row.pk)) for row in requests)
        return
    for group in _groups(requests, answers):
        yield from _with_payload(group, answers)


def _last(answers: QuerySet[Answer]) -> dict[int, Answer]:
    """Return the last answer of each request, without its line."""
    return {answer.request_id: answer for answer in answers.defer("line").order_by("attempt")}


def _groups(requests: Sequence[Request], answers: dict[int, Answer]) -> Iterator[list[Request]]:
    """Part requests so that what belongs to a group is small enough to be in memory."""
    group: list[Request] = []
    size = 0
    for row in requests:
        its_size = row.size_bytes + (getattr(answers.get(row.pk), "size", 0) or 0)
        if group and size + its_size > BYTES_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(row)
        size += its_size
    if group:
        yield group


def _with_payload(group: Sequence[Request], answers: dict[int, Answer]) -> Iterator[Told]:
    ids = [row.pk for row in group]
    bodies = RequestBody.objects.in_bulk(ids)
    chosen = [answers[pk].pk for pk in ids if pk in answers]
    found = dict(Answer.objects.filter(pk__in=chosen).values_list("request_id", "line"))
    for row in group:
        body = bodies.get(row.pk)
        yield Told(
            request=row,
            answer=answers.get(row.pk),
            body=bytes(body.body) if body else b"",
            metadata=bytes(body.metadata) if body else b"",
            line=bytes(found.get(row.pk, b"")),
        )


def _json_line(columns: Sequence[Column], told: Told) -> bytes:
    members = {column.name: _json_value(column, told) for column in columns}
    return msgspec.json.encode(members) + b"\n"


def _json_value(column: Column, told: Told) -> Any:
    value = column.of(told)
    if column.is_payload:
        return _spliced(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return _sendable(value) if isinstance(value, str) else value


def _spliced(content: bytes) -> Any:
    """Return JSON as the bytes that came, on one line; what is no JSON as a string, nothing as null."""
    if not content:
        return None
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
        content.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content.decode("utf-8", "replace")
    # Line breaks stand between tokens only: within strings JSON has them escaped.
    return msgspec.Raw(content.replace(b"\r", b" ").replace(b"\n", b" "))


def _csv_line(columns: Sequence[Column], told: Told) -> bytes:
    return _csv([_cell(column.of(told)) for column in columns])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, bool | int | float | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return disarmed(_sendable(text))


def disarmed(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: with a quote before what would begin one."""
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


def _csv(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()


def _sendable(text: str) -> str:
    """Return text with lone surrogates escaped, so that UTF-8 can carry it."""
    return text.encode("utf-8", "backslashreplace").decode()
