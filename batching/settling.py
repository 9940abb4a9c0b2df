"""Answer lines become the ends of their requests, a chunk at a time, in sets.

A line belongs to the open request of this batch whose key it carries; any other line changes
nothing, so the same file may be read twice. Called by collection, inside its transactions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, models
from django.db.models import Count, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from batching import costs, endings
from batching.lifecycle import Actor, RequestState, move
from batching.models import Answer, Batch, Request
from batching.providers.base import AnswerLine, Kind
from batching.staging import BYTES, INTEGER, TEXT, sql_value, stage

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""How often a request is sent before a retryable end becomes its end."""
_CHUNK_LINES, _CHUNK_BYTES = 2_000, 8 * 1024 * 1024
_LONGEST_KEY = 40
_SETTLER = Actor(name="collection")
_STAGED = {
    "key": TEXT,
    "verdict": TEXT,
    "status_code": INTEGER,
    "error_code": TEXT,
    "error_message": TEXT,
    "input_tokens": INTEGER,
    "cached_tokens": INTEGER,
    "output_tokens": INTEGER,
    "reasoning_tokens": INTEGER,
    "cost_nano": INTEGER,
    "line": BYTES,
}
_GOOD, _BAD, _AGAIN = "good", "bad", "again"
_SPENT = (
    "COALESCE((SELECT s.cost_nano FROM answer_line s WHERE s.key = batching_request.key)"
    " + COALESCE(batching_request.cost_nano, 0), batching_request.cost_nano)"
)
"""What a request has cost with this answer; an answer of unknown price adds nothing."""


def answer_path(batch: Batch, file_id: str) -> Path:
    """Return where a downloaded answer file is kept until it is settled.

    The file's id is part of the name: what an earlier run of a restarted batch left is never read.
    """
    name = hashlib.sha256(file_id.encode()).hexdigest()[:16]
    return Path(settings.DATA_DIR) / "answers" / f"{batch.key}-{name}.jsonl"


def chunks(lines: Iterable[AnswerLine]) -> Iterator[list[AnswerLine]]:
    """Cut a file's lines into chunks, bounded by count and by bytes."""
    chunk: list[AnswerLine] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.raw)
        if len(chunk) >= _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def settle(batch: Batch, lines: list[AnswerLine], now: datetime) -> int:
    """Settle the requests that these lines answer; return how many lines belong to no request.

    Call inside atomic. The first line of a request wins; a request that is settled stays as it is.
    """
    ours = [line for line in lines if _may_be_ours(line)]
    tariff = costs.tariff(batch.lane, batch.create_started_at or now)
    stage("answer_line", _STAGED, _staged(ours, tariff), key="key")
    unknown = len(lines) - len(ours) + _unknown_keys()
    _note_contradictions(batch, ours)
    _store_answers(batch, now)
    _add_costs(batch)
    _note_errors(batch)
    spent = RawSQL(_SPENT, ())  # noqa: S611  # a constant of ours
    endings.answered(_answered_by(batch, _GOOD), reason="answered", now=now, cost_nano=spent)
    _fail(batch, now)
    _send_again(batch, now)
    if unknown:
        logger.warning("lines of no request", extra={"batch": batch.key, "lines": unknown})
    return unknown


def _may_be_ours(line: AnswerLine) -> bool:
    """Tell whether the line carries an id that a request of ours may have, and an index can hold."""
    key = line.custom_id
    return key is not None and len(key) <= _LONGEST_KEY and "\x00" not in key


def _staged(lines: list[AnswerLine], tariff: costs.Tariff) -> Iterator[tuple[Any, ...]]:
    seen = set()
    for line in lines:
        if line.custom_id in seen:
            continue
        seen.add(line.custom_id)
        usage = line.usage
        yield (
            line.custom_id,
            _verdict(line),
            line.status_code,
            _plain(line.error_code)[:100],
            _plain(line.error_message)[:500],
            usage.input_tokens if usage else None,
            usage.cached_tokens if usage else None,
            usage.output_tokens if usage else None,
            usage.reasoning_tokens if usage else None,
            costs.price(usage, tariff),
            line.raw,
        )


def _verdict(line: AnswerLine) -> str:
    if line.kind is Kind.SUCCEEDED:
        return _GOOD
    return _AGAIN if line.is_retryable else _BAD


def _plain(text: str) -> str:
    """Return a provider's words as every database takes them: without NUL and lone surrogates."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def _unknown_keys() -> int:
    request = Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM answer_line s WHERE NOT EXISTS"  # noqa: S608
            f" (SELECT 1 FROM {request} r WHERE r.key = s.key)"
        )
        return int(cursor.fetchone()[0])


def _note_contradictions(batch: Batch, lines: list[AnswerLine]) -> None:
    """Log lines that say something else of a request than an earlier line did."""
    first: dict[str | None, bytes] = {}
    within = sum(first.setdefault(line.custom_id, line.raw) != line.raw for line in lines)
    answer, request = Answer._meta.db_table, Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COUNT(*) FROM answer_line s JOIN {request} r ON r.key = s.key"  # noqa: S608
            f" JOIN {answer} a ON a.request_id = r.id AND a.attempt = r.attempt"
            " WHERE r.batch_id = %s AND a.line <> s.line",
            [batch.pk],
        )
        count = within + int(cursor.fetchone()[0])
    if count:
        facts = {"batch": batch.key, "lines": count}
        logger.warning("answers contradict each other, the first counts", extra=facts)


def _store_answers(batch: Batch, now: datetime) -> None:
    answer, request = Answer._meta.db_table, Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {answer} (request_id, attempt, batch_id, status_code, line, input_tokens,"  # noqa: S608
            " cached_tokens, output_tokens, reasoning_tokens, cost_nano, received_at)"
            " SELECT r.id, r.attempt, r.batch_id, s.status_code, s.line, s.input_tokens,"
            " s.cached_tokens, s.output_tokens, s.reasoning_tokens, s.cost_nano, %s"
            f" FROM answer_line s JOIN {request} r ON r.key = s.key"
            " WHERE r.batch_id = %s AND r.state = 'processing'"
            " ON CONFLICT (request_id, attempt) DO NOTHING",
            [sql_value(now), batch.pk],
        )


def _add_costs(batch: Batch) -> None:
    """Add what the chunk's answers cost to the batch, while their requests are still open."""
    request = Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT SUM(s.cost_nano) FROM answer_line s JOIN {request} r ON r.key = s.key"  # noqa: S608
            " WHERE r.batch_id = %s AND r.state = 'processing'",
            [batch.pk],
        )
        spent = cursor.fetchone()[0]
    if spent is not None:
        so_far = Coalesce(models.F("cost_nano"), 0)
        Batch.objects.filter(pk=batch.pk).update(cost_nano=so_far + int(spent))


def _note_errors(batch: Batch) -> None:
    """Copy the error of each failed line to its request, where lists show and group it, and add its cost."""
    request = Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {request} SET error_code = s.error_code, error_message = s.error_message,"  # noqa: S608
            f" cost_nano = COALESCE(s.cost_nano + COALESCE({request}.cost_nano, 0), {request}.cost_nano)"
            f" FROM answer_line s WHERE s.key = {request}.key AND s.verdict <> 'good'"
            f" AND {request}.batch_id = %s AND {request}.state = 'processing'",
            [batch.pk],
        )


def _answered_by(batch: Batch, verdict: str) -> models.QuerySet[Request]:
    """Return the open requests of the batch whose staged line has this verdict."""
    keys = RawSQL("SELECT key FROM answer_line WHERE verdict = %s", [verdict])
    return Request.objects.filter(batch=batch, state="processing", key__in=keys)


def _fail(batch: Batch, now: datetime) -> None:
    endings.end_as_noted(
        _answered_by(batch, _BAD), reason="the provider answered with an error", now=now
    )


def _send_again(batch: Batch, now: datetime) -> None:
    """Put back what may go better next time, unless someone asked for the batch to be stopped."""
    again = _answered_by(batch, _AGAIN)
    if batch.cancel_asked:
        cancel_unanswered(again, now)
        return
    requeue_or_end(again, code="", message="", how="fail", now=now)


def cancel_unanswered(rows: models.QuerySet[Request], now: datetime) -> None:
    """End requests that their cancelled batch did not get to."""
    endings.end(rows, "cancel", code="cancelled", message="its batch was cancelled", now=now,
                by=_SETTLER)  # fmt: skip


def requeue_or_end(
    rows: models.QuerySet[Request], *, code: str, message: str, how: str, now: datetime
) -> None:
    """Send unanswered requests again while they have attempts left; end the others with ``how``.

    With an empty ``code`` the error that is noted on each request stays.
    """
    spent = rows.filter(attempt__gte=MAX_ATTEMPTS)
    if code:
        endings.end(spent, how, code=code, message=message, now=now, by=_SETTLER)
    else:
        endings.end_as_noted(spent, reason=f"no good answer in {MAX_ATTEMPTS} attempts", now=now)
    why = message or "the provider's error may pass"
    endings.requeue(rows.filter(attempt__lt=MAX_ATTEMPTS), reason=why, now=now, by=_SETTLER)


def finish(batch: Batch, now: datetime, *, by: Actor) -> None:
    """Every request of the batch is settled: results go out, or the batch failed as a whole."""
    counts = batch.requests.aggregate(
        all=Count("pk"),
        bad=Count("pk", filter=Q(state=RequestState.FAILED)),
        cancelled=Count("pk", filter=Q(state=RequestState.CANCELLED)),
    )
    if counts["all"] and counts["cancelled"] == counts["all"]:
        reason = "no request was answered before it was stopped"
        move(batch, "stopped", reason=reason, by=by, now=now, next_attempt_at=None)
        return
    if counts["all"] and counts["bad"] == counts["all"]:
        move(
            batch,
            "fail",
            reason="all requests in batch failed",
            by=by,
            now=now,
            last_error="All requests in batch failed",
            failed_count=counts["bad"],
            answered_count=0,
            next_attempt_at=None,
        )
        return
    reason = f"{counts['all'] - counts['bad']:,} answered, {counts['bad']:,} failed"
    move(batch, "settled", reason=reason, by=by, now=now, tries=0, last_error="")
    move(batch, "deliver", reason="results are due", by=by, now=now, next_attempt_at=now)
