"""All results of one submission, in the order in which its requests were sent: NDJSON, or CSV for a spreadsheet.

The answer ends before the first request that has no end yet, so the order never changes and a cursor never skips
anything; `partial=true` leaves the unfinished ones out instead. Streamed: memory does not grow with it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from msgspec import Raw, Struct

from batching import pages
from batching.api.auth import Caller
from batching.api.errors import not_found
from batching.api.operations import NDJSON, Answer, Link, Parameter, operation, wrong_parameter
from batching.api.paging import RowId, read_cursor, write_cursor
from batching.api.results_views import NEXT_CURSOR
from batching.models import Request, Submission
from batching.models.projects import Scope
from delivery import results
from delivery.envelope import Envelope, Usage

CSV: Final = "text/csv"
IS_COMPLETE: Final = "X-Complete"
_FORMATS = {"ndjson": NDJSON, "csv": CSV}
_ROWS = 500
_RAW = ("response", "error", "metadata")
_COLUMNS = (
    "custom_id", "outcome", "status_code", "response", "error", "input_tokens", "cached_tokens",
    "output_tokens", "reasoning_tokens", "cost", "metadata",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take for the beginning of a formula (OWASP, CSV injection)."""


class _Delivered(Struct):
    """The members of a result that have a column."""

    custom_id: str
    outcome: str
    response: Raw
    error: Raw
    metadata: Raw
    cost: str | None
    usage: Usage | None


class _Status(Struct):
    status_code: int | None = None


@operation(
    scope=Scope.READ,
    query=(
        Parameter(
            name="format",
            about="`ndjson` or `csv`; without it the header Accept decides.",
            schema={"type": "string", "enum": ["ndjson", "csv"], "default": "ndjson"},
        ),
        Parameter(
            name="cursor",
            about=f"Where to go on: the header `{NEXT_CURSOR}` of an answer read to its end.",
        ),
        Parameter(
            name="after",
            about="Where to go on when an answer broke off: the `custom_id` of the last whole line.",
        ),
        Parameter(
            name="partial",
            about="true: every result there is now, in order, leaving out what is unfinished.",
            schema={"type": "boolean", "default": False},
        ),
    ),
    answers={
        200: Answer(
            "One result a line, as it is delivered; or CSV.",
            Envelope,
            media_type=NDJSON,
            other_media_types=(CSV,),
            headers={
                NEXT_CURSOR: "Where to go on.",
                IS_COMPLETE: "true: this answer holds the last result; else false.",
            },
            links=(
                Link(
                    to="submission_results",
                    values={
                        "submission_id": "$request.path.submission_id",
                        "cursor": f"$response.header.{NEXT_CURSOR}",
                    },
                ),
            ),
        )
    },
    fails=(400, 404),
)
def submission_results(
    request: HttpRequest, caller: Caller, submission_id: str
) -> HttpResponseBase:
    """Read a submission's results, in the order in which its requests were sent.

    The answer ends before the first request without an end: go on later with `X-Next-Cursor`. `X-Complete`
    says whether it holds the last one. In CSV a cell that a spreadsheet might take for a formula begins
    with `'`.
    """
    submission = _mine(caller, submission_id)
    media_type = _format(request)
    rows = Request.objects.filter(submission=submission)
    after = _place(request, rows)
    last, is_complete = _end(submission, rows, is_partial=_is_partial(request))
    found = _found(rows, after, last)
    lines = _as_csv(found, with_head=not after) if media_type == CSV else _as_ndjson(found)
    headers = {
        NEXT_CURSOR: write_cursor(max(after, last)),
        IS_COMPLETE: "true" if is_complete else "false",
    }
    if media_type == CSV:
        headers["Content-Disposition"] = f'attachment; filename="{submission.key}.csv"'
        media_type = f"{CSV}; charset=utf-8"
    return StreamingHttpResponse(lines, content_type=media_type, headers=headers)


def _mine(caller: Caller, key: str) -> Submission:
    mine = Submission.objects.filter(project=caller.project)
    found = mine.filter(key=key).first() if "\0" not in key else None
    if found is None:
        raise not_found("submission")
    return found


def _format(request: HttpRequest) -> str:
    asked = request.GET.get("format")
    if asked is None:
        return CSV if request.get_preferred_type([NDJSON, CSV]) == CSV else NDJSON
    if asked not in _FORMATS:
        raise wrong_parameter("format", "must be ndjson or csv")
    return _FORMATS[asked]


def _is_partial(request: HttpRequest) -> bool:
    given = request.GET.get("partial", "false").lower()
    if given not in ("true", "1", "false", "0"):
        raise wrong_parameter("partial", "must be true or false")
    return given in ("true", "1")


def _place(request: HttpRequest, rows: QuerySet[Request]) -> int:
    """Return the row id that the answer begins behind. Raises ApiError 400."""
    custom_id = request.GET.get("after")
    if custom_id is None:
        return int(read_cursor(request, RowId) or 0)
    found = None
    if "\0" not in custom_id:
        found = rows.filter(custom_id=custom_id).values_list("pk", flat=True).first()
    if found is None:
        raise wrong_parameter("after", "is no custom_id of this submission")
    return found


def _end(submission: Submission, rows: QuerySet[Request], *, is_partial: bool) -> tuple[int, bool]:
    """Return the last row id to be told, and whether nothing will ever come behind or between."""
    last = rows.aggregate(last=Max("pk"))["last"] or 0
    unfinished = rows.filter(settled_at__isnull=True).aggregate(first=Min("pk"))["first"]
    is_complete = unfinished is None and submission.finished_at is not None
    if unfinished is None or is_partial:
        return last, is_complete
    return unfinished - 1, is_complete


def _found(rows: QuerySet[Request], after: int, last: int) -> Iterator[bytes]:
    """Yield each result, some hundred rows at a time."""
    rows = rows.filter(settled_at__isnull=False, pk__lte=last)
    for part in pages.in_order(rows, _ROWS, after=after):
        for _, line in results.lines(part):
            yield line


def _as_ndjson(found: Iterator[bytes]) -> Iterator[bytes]:
    for line in found:
        yield line + b"\n"


def _as_csv(found: Iterator[bytes], *, with_head: bool) -> Iterator[bytes]:
    if with_head:
        yield _csv_row(_COLUMNS)
    for line in found:
        yield _csv_row(_cells(line))


def _cells(line: bytes) -> tuple[Any, ...]:
    result = _read(line)
    usage = result.usage or Usage(
        input_tokens=None, cached_tokens=None, output_tokens=None, reasoning_tokens=None
    )
    return (
        _plain(result.custom_id),
        result.outcome,
        _status_code(result.response),
        _json(result.response),
        _json(result.error),
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        result.cost,
        _json(result.metadata),
    )


def _read(line: bytes) -> _Delivered:
    """Read a result, and one with half a surrogate pair in its answer too."""
    try:
        return msgspec.json.decode(line, type=_Delivered)
    except msgspec.DecodeError:
        found = json.loads(line.decode("utf-8", "replace"), strict=False)
        return msgspec.convert(
            found | {name: Raw(json.dumps(found[name]).encode()) for name in _RAW}, type=_Delivered
        )


def _status_code(response: Raw) -> int | None:
    try:
        found = msgspec.json.decode(response, type=_Status | None)
    except msgspec.DecodeError:  # an answer of some other make is shown as it came
        return None
    return found.status_code if found else None


def _json(raw: Raw) -> str:
    text = bytes(raw).decode("utf-8", "replace")
    return "" if text == "null" else _plain(text)


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv_row(cells: tuple[Any, ...]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    return written.getvalue().encode("utf-8", "replace")
