"""A client's own batch, from the file that it names to its last answer.

Two sweeps: ``read_due`` checks a file whole and stores its lines, all or none; ``watch_due`` ends a batch
when its last request has ended, and stops one that was cancelled. In between its requests travel with everyone
else's, in as many provider batches as it takes, again when one of those expires: the client sees none of it.
A claim is a lease like a provider batch's, renewed at every chunk. Reading a file once more after a crash
stores nothing twice, because the batch's own key is the scope of its custom_ids. Called by the clock and
the doors of OpenAI's and Anthropic's API.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from batching import (
    clientfiles,
    clientlines,
    clientprogress,
    endings,
    intake,
    resultfile,
    steering,
    wire,
)
from batching.clientlines import Defaults, LineError
from batching.intake import Rejected
from batching.lifecycle import Actor, BatchState, RequestState
from batching.models import Batch, ClientFile, Request, Submission
from batching.overrides import effective
from batching.steering import Refused
from batching.wire import Line

logger = logging.getLogger(__name__)

_LEASE = timedelta(minutes=2)
_AGAIN = timedelta(seconds=15)
_SEAL_WITHIN_S: Final = 60
"""How long a line waits for company: the next chunk of its own file comes sooner."""
_OUTPUT_KEPT: Final = timedelta(days=30)
_CHUNK_LINES, _CHUNK_BYTES = 2_000, 8 * 1024 * 1024
_READER, _CANCELLER = Actor(name="client batch"), Actor(name="its client")
_NOT_SENT = (BatchState.BUILDING, BatchState.UPLOADING)
_HELD = (
    *(BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY),
    *(BatchState.SUBMITTING, BatchState.PROCESSING),
)


class _Lost(Exception):
    """The batch was cancelled, or someone else has it: what is under way is dropped."""


def read_due(now: datetime) -> int:
    """Read the files of the batches that were created; return how many."""
    fresh = Q(in_progress_at__isnull=True, cancelling_at__isnull=True)
    return _each(Submission.objects.filter(fresh), _read, now)


def watch_due(now: datetime) -> int:
    """End the batches with nothing left open, and stop those that are to be stopped; return how many."""
    is_open = Exists(Request.objects.undecided().filter(submission=OuterRef("pk")))
    stored = Q(in_progress_at__isnull=False) | Q(cancelling_at__isnull=False)
    cancelling = Submission.objects.filter(is_open, cancelling_at__isnull=False)
    ended = Submission.objects.filter(stored, ~is_open)
    return _each(cancelling, _stop, now) + _each(ended, _finish, now)


def _each(
    which: models.QuerySet[Submission], step: Callable[[Submission], None], now: datetime
) -> int:
    """Claim those of ``which`` that are due at ``now``, one after another, and take the step."""
    taken = 0
    due = which.filter(next_attempt_at__lte=now).order_by("next_attempt_at", "pk")
    while batch := _claim(due):
        taken += 1
        try:
            step(batch)
        except _Lost:
            logger.info("claim lost", extra={"submission": batch.key})
        except Exception as error:
            logger.exception("step failed", extra={"submission": batch.key})
            _held(batch).update(
                next_attempt_at=timezone.now() + _AGAIN,
                last_error=f"{type(error).__name__}: {error}"[:500],
            )
    return taken


def _claim(due: models.QuerySet[Submission]) -> Submission | None:
    with transaction.atomic():
        batch = due.select_for_update(skip_locked=True, of=("self",)).first()
        if batch is None:
            return None
        batch.fence += 1
        batch.next_attempt_at = timezone.now() + _LEASE
        batch.save(update_fields=["fence", "next_attempt_at"])
    return batch


def _held(batch: Submission) -> models.QuerySet[Submission]:
    return Submission.objects.filter(pk=batch.pk, fence=batch.fence)


def _note(batch: Submission, **changes: Any) -> None:
    """Save facts on a claimed batch. Raises _Lost when it is no longer ours."""
    if not _held(batch).update(**changes):
        raise _Lost
    for field, value in changes.items():
        setattr(batch, field, value)


def _renew(batch: Submission) -> None:
    _note(batch, next_attempt_at=timezone.now() + _LEASE)


def _read(batch: Submission) -> None:
    """Check the whole file, then store it."""
    file = batch.input_file
    if file is None or file.deleted_at or not clientfiles.path_of(file.key).exists():
        message = "The input file is gone."
        _fail(batch, [LineError(code="invalid_request", message=message, param="file_id")])
        return
    path, defaults = clientfiles.path_of(file.key), _defaults(batch)
    taken = intake.Check(batch.project, batch.api_key)
    found = clientlines.check(path, taken, defaults, lambda: _renew(batch))
    if found.errors:
        _fail(batch, found.errors, found.errors_left_out)
        return
    for chunk in _chunks(clientlines.read(path, defaults)):
        _store(batch, chunk)
    now = timezone.now()
    _note(
        batch,
        accepted=found.lines,
        finished_at=now,
        in_progress_at=now,
        next_attempt_at=now,
        last_error="",
    )
    if file.purpose == ClientFile.SPOOLED:
        clientfiles.delete(file, now)
    logger.info("client batch read", extra={"submission": batch.key, "requests": found.lines})


def _defaults(batch: Submission) -> Defaults:
    config = batch.delivery_config
    delivery = wire.read_delivery(msgspec.json.encode(config)) if config else None
    max_wait_s = min(effective("BATCHER_MAX_WAIT_SECONDS"), _SEAL_WITHIN_S)
    return Defaults(delivery=delivery, max_wait_s=max_wait_s)


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    chunk, size = list[Line](), 0
    for line in lines:
        chunk.append(line)
        size += len(line.body)
        if len(chunk) >= _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _store(batch: Submission, lines: list[Line]) -> None:
    """Store some lines. What was taken when it was checked and is not now, is checked again later."""
    with transaction.atomic():
        _renew(batch)  # in the same transaction: nothing is stored after a cancel
        answers = intake.accept(
            batch.project,
            lines,
            submission=batch,
            scope=batch.key,
            by=_READER,
            now=timezone.now(),
        )
    refused = next((answer for answer in answers if isinstance(answer, Rejected)), None)
    if refused is not None:
        raise ValueError(f"a line that was right is refused now: {refused.detail}")


def _fail(batch: Submission, errors: list[LineError], left_out: int = 0) -> None:
    """End a batch whose file is not taken, with what an earlier reading may have stored of it."""
    _take_back(batch)
    shown = [error.shown for error in errors]
    if left_out:
        message = f"{left_out:,} more lines are wrong; only the first are told."
        shown.append(LineError(code="more_errors", message=message).shown)
    now = timezone.now()
    _keep_input(batch, now)
    _note(
        batch,
        line_errors=shown,
        accepted=0,
        rejected=max(batch.accepted, len(errors) + left_out),
        failed_at=now,
        finished_at=now,
        next_attempt_at=None,
    )
    logger.info("client batch refused", extra={"submission": batch.key, "errors": len(shown)})


def cancel(batch: Submission, now: datetime) -> None:
    """Stop a client's batch: what is not sent yet never is, what the provider has is asked back.

    Nothing happens to one that is being stopped already. Raises Refused when it has ended.
    """
    going = Submission.objects.filter(
        pk=batch.pk, completed_at=None, failed_at=None, cancelled_at=None, finalizing_at=None
    )
    asked = going.filter(cancelling_at=None)
    asked.update(cancelling_at=now, next_attempt_at=now, fence=F("fence") + 1)
    batch.refresh_from_db()
    if batch.cancelling_at is None:
        raise Refused("invalid_state", "it has ended")


def delete(batch: Submission, now: datetime) -> None:
    """Put a client's batch that has ended out of its client's sight; its requests stay."""
    Submission.objects.filter(pk=batch.pk).update(deleted_at=now)
    if batch.input_file and batch.input_file.purpose == ClientFile.SPOOLED:
        clientfiles.delete(batch.input_file, now)


def _stop(batch: Submission) -> None:
    """Take back what can be taken back; what travels with others' requests is waited for."""
    _take_back(batch)
    for held in _ours_alone(batch):
        try:
            steering.cancel_batch(
                held, by=_CANCELLER, reason="its client cancelled", now=timezone.now()
            )
        except Refused as problem:
            facts = {"submission": batch.key, "batch": held.key, "why": problem.detail[:200]}
            logger.warning("batch not cancelled", extra=facts)
    is_open = Request.objects.undecided().filter(submission=batch).exists()
    _note(batch, next_attempt_at=timezone.now() + _AGAIN if is_open else batch.cancelling_at)


def _take_back(batch: Submission) -> None:
    """End the requests that no provider has. Their custom_ids stay theirs."""
    not_sent = Batch.objects.filter(state__in=_NOT_SENT).values("pk")
    rows = Request.objects.filter(
        Q(batch=None) | Q(batch__in=not_sent), submission=batch, state=RequestState.PENDING
    )
    message = "This request was not sent: its batch was cancelled."
    endings.end(rows, "cancel", code="batch_cancelled", message=message, now=timezone.now(),
                by=_CANCELLER)  # fmt: skip


def _ours_alone(batch: Submission) -> list[Batch]:
    """Return the provider batches under way that hold nobody else's requests."""
    inside = Request.objects.filter(batch=OuterRef("pk"))
    others = inside.exclude(submission=batch.pk) | inside.filter(submission=None)
    rows = Batch.objects.filter(Exists(inside.filter(submission=batch.pk)), ~Exists(others))
    return list(rows.filter(state__in=_HELD, cancel_asked=False).select_related("lane__account"))


def _finish(batch: Submission) -> None:
    """Write down what became of a batch: its counts, its tokens, and how long its files are."""
    if batch.finalizing_at is None:
        _note(batch, finalizing_at=timezone.now())
    counted = clientprogress.counts([batch])[batch.pk]
    has_files = batch.kind == Submission.Kind.OPENAI
    sizes = {side: _measure(batch, side) for side in ClientFile.Side.values if has_files}
    now = timezone.now()
    _keep_input(batch, now)
    with transaction.atomic():
        end = "cancelled_at" if batch.cancelling_at else "completed_at"
        _note(
            batch,
            **{end: now},
            accepted=max(batch.accepted, counted.completed + counted.failed),
            completed_count=counted.completed,
            failed_count=counted.failed,
            cancelled_count=counted.cancelled,
            expired_count=counted.expired,
            **clientprogress.usage(batch),
            next_attempt_at=None,
        )
        kept = batch.output_expires_after_s
        expires_at = now + (timedelta(seconds=kept) if kept else _OUTPUT_KEPT)
        for side, size in sizes.items():
            if size:
                file = clientprogress.output_file(batch, side)
                ClientFile.objects.filter(pk=file.pk).update(
                    size_bytes=size, created_at=now, expires_at=expires_at
                )
    logger.info("client batch ended", extra={"submission": batch.key, "failed": counted.failed})


def _keep_input(batch: Submission, now: datetime) -> None:
    """Keep what was spooled as long as output: it names the requests of a batch that was not read whole."""
    spooled = ClientFile.objects.there(now).filter(purpose=ClientFile.SPOOLED)
    spooled.filter(pk=batch.input_file_id or 0).update(expires_at=now + _OUTPUT_KEPT)


def _measure(batch: Submission, side: str) -> int:
    size = 0
    for number, line in enumerate(resultfile.lines(batch.pk, side)):
        size += len(line)
        if number % _CHUNK_LINES == 0:
            _renew(batch)
    return size
