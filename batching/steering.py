"""What a person may do to a batch or a request: seal, cancel, restart, retry, delete.

The API and the admin call these functions and nothing below them. Each does one thing to one row,
logs who and why, and raises Refused with a plain reason when the row's state does not allow it.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from batching import endings, inputfile, packing
from batching.gateway import connect
from batching.lifecycle import BATCH_ENDS, Actor, BatchState, RequestState, arrow, move
from batching.models import Batch, Request
from batching.providers.base import NotFound, ProviderError

logger = logging.getLogger(__name__)


_DELETED_AT_ONCE = 2_000
_DELIVERING = frozenset({BatchState.READY_TO_DELIVER, BatchState.DELIVERING})


class Refused(Exception):
    """It can't be done to this row now. ``code`` is for programs, ``detail`` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def _require(row: Batch | Request, transition: str, verb: str) -> None:
    sources = arrow(type(row), transition).sources
    if row.state not in sources:
        code = "invalid_batch_state" if isinstance(row, Batch) else "invalid_state"
        noun = "batch" if isinstance(row, Batch) else "request"
        raise Refused(code, f"a {noun} that is {row.state} can't be {verb}")


def seal(batch: Batch, *, by: Actor, reason: str, now: datetime) -> Batch:
    """Send a building batch on its way as it is. Refused when it is empty or no longer building."""
    _require(batch, "seal", "sealed")
    if not batch.requests.filter(state=RequestState.PENDING).exists():
        raise Refused("empty_batch", "the batch has no requests")
    if not packing.seal(batch.pk, reason=reason or "asked for", now=now, by=by):
        raise Refused("invalid_batch_state", "the batch is no longer building")
    batch.refresh_from_db()
    return batch


def cancel_batch(batch: Batch, *, by: Actor, reason: str, now: datetime) -> Batch:
    """Stop a batch. While the provider holds it, the provider is asked and finished answers are kept.

    Refused when nothing is left to stop, or when the provider says no (nothing changes then).
    """
    reason = reason or "cancelled"
    if batch.state in arrow(Batch, "cancel").sources:
        with transaction.atomic():
            _moved(batch, "cancel", by=by, reason=reason, now=now, next_attempt_at=None,
                   cancel_asked=True)  # fmt: skip
            _cancel_requests(batch, by, reason, now)
        inputfile.discard(batch)
        return batch
    _require(batch, "ask_to_cancel", "cancelled")
    # One that was adopted unproven may be somebody else's: it runs to its end.
    is_known = batch.provider_batch_id and not batch.is_unproven
    if is_known and not _provider_cancels(batch):
        with transaction.atomic():
            _moved(batch, "ask_to_cancel", by=by, reason=reason, now=now, cancel_asked=True)
            _moved(batch, "cancelled_by_provider", by=by, reason="unknown to the provider", now=now,
                   next_attempt_at=None)  # fmt: skip
            _cancel_requests(batch, by, reason, now)
        return batch
    due = {"next_attempt_at": now} if batch.provider_batch_id else {}
    return _moved(batch, "ask_to_cancel", by=by, reason=reason, now=now, cancel_asked=True, **due)


def _provider_cancels(batch: Batch) -> bool:
    """Ask the provider to stop it; False when it does not know the batch. Raises Refused."""
    try:
        connect(batch.lane.account).cancel(batch.provider_batch_id)
    except NotFound:
        return False
    except ProviderError as error:
        raise Refused("provider_refused", f"the provider did not cancel it: {error}") from error
    return True


def _cancel_requests(batch: Batch, by: Actor, reason: str, now: datetime) -> None:
    rows = Request.objects.filter(batch=batch).undecided()
    endings.end(rows, "cancel", code="cancelled", message=reason, now=now, by=by)


def _moved(batch: Batch, transition: str, **how: object) -> Batch:
    """Move the batch as it is by now: a person's word holds whoever has claimed it meanwhile."""
    with transaction.atomic():
        current = Batch.objects.select_for_update().filter(pk=batch.pk).first()
        if current is None or current.state not in arrow(Batch, transition).sources:
            now_it_is = current.state if current else "gone"
            raise Refused("invalid_batch_state", f"the batch is {now_it_is} by now")
        move(current, transition, **how)  # type: ignore[arg-type]  # the keywords of move
    batch.refresh_from_db()
    return batch


def restart_batch(batch: Batch, *, by: Actor, reason: str, now: datetime) -> Batch:
    """Send what a failed batch left unfinished again, with a new file; finished answers stay."""
    _require(batch, "restart", "restarted")
    reason = reason or "restarted"
    unfinished = Request.objects.filter(batch=batch, state=RequestState.FAILED)
    with transaction.atomic():
        again = endings.requeue(unfinished, reason=reason, now=now, by=by, keep_batch=True)
        if not again:
            raise Refused("nothing_to_do", "no request of the batch is unfinished")
        _moved(
            batch,
            "restart",
            by=by,
            reason=reason,
            now=now,
            next_attempt_at=now,
            tries=0,
            token_limit_tries=0,
            missing_looks=0,
            last_error="",
            cancel_asked=False,
            ignored_lines=0,
            wait_reason="",
            waiting_since=None,
            input_sha256="",
            input_file_id="",
            upload_started_at=None,
            provider_batch_id="",
            doubtful_since=None,
            is_unproven=False,
            provider_status="",
            provider_total=None,
            provider_completed=None,
            provider_failed=None,
            provider_expires_at=None,
            output_file_id="",
            error_file_id="",
            answered_count=None,
            failed_count=None,
        )
        packing.recount(batch)
    return batch


def delete_batch(
    batch: Batch, *, by: Actor, reason: str, now: datetime, with_undelivered: bool = False
) -> None:
    """Delete an ended batch with its requests, and its files at the provider as far as they go.

    Refused while it is under way. Results that were not delivered go only ``with_undelivered``, and then also
    those of a batch that delivers now.
    """
    _require_deletable(batch, with_undelivered=with_undelivered)
    _delete_files(batch)
    inputfile.discard(batch)
    with transaction.atomic():
        current = Batch.objects.select_for_update().get(pk=batch.pk)
        _require_deletable(current, with_undelivered=with_undelivered)
        while some := list(batch.requests.values_list("pk", flat=True)[:_DELETED_AT_ONCE]):
            Request.objects.filter(pk__in=some).delete()
        current.delete()
    logger.info("batch deleted", extra={"batch": batch.key, "by": by.name, "reason": reason})


def _require_deletable(batch: Batch, *, with_undelivered: bool) -> None:
    is_delivering = batch.state in _DELIVERING
    if not is_delivering and (batch.state not in BATCH_ENDS or batch.next_attempt_at is not None):
        raise Refused("invalid_batch_state", f"a batch that is {batch.state} can't be deleted")
    open_ones = Q(due_at__isnull=False) | Q(dead_at__isnull=False)
    undelivered = batch.requests.filter(open_ones).count()
    if undelivered and not with_undelivered:
        many = f"{undelivered:,} results" if undelivered > 1 else "a result"
        detail = f"{many} of this batch would never be delivered: confirm it to delete them, too"
        raise Refused("undelivered", detail)
    if is_delivering and not undelivered:
        raise Refused("invalid_batch_state", "the batch is about to end; delete it then")


def _delete_files(batch: Batch) -> None:
    """Best effort: a file left behind at the provider costs nothing and expires."""
    files = filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id))
    for file_id in files:
        try:
            connect(batch.lane.account).delete_file(file_id)
        except ProviderError as error:
            facts = {"batch": batch.key, "file": file_id, "error": str(error)[:200]}
            logger.warning("provider file not deleted", extra=facts)


def cancel_request(request: Request, *, by: Actor, reason: str, now: datetime) -> Request:
    """Take a request back before it is sent. Its client is told like of any other end.

    Refused once the provider has it (cancel the batch then), and once it has ended.
    """
    if request.state != RequestState.PENDING:
        raise Refused("invalid_state", f"a request that is {request.state} can't be taken back")
    rows = Request.objects.filter(pk=request.pk, state=RequestState.PENDING)
    with transaction.atomic():
        # Locked: an upload that is under way finds out before its file counts.
        locked = Batch.objects.select_for_update(of=("self",))
        batch = locked.filter(requests=request.pk).first()
        if batch is not None and batch.state not in (BatchState.BUILDING, BatchState.UPLOADING):
            raise Refused("invalid_state", f"its batch is {batch.state}: it is in a file by now")
        why = reason or "cancelled"
        moved = endings.end(
            rows.filter(batch=batch), "cancel", code="cancelled", message=why, now=now, by=by
        )
    _one(moved, request)
    return request


def retry_request(request: Request, *, by: Actor, reason: str, now: datetime) -> Request:
    """Send a request that ended badly again, as its next attempt in another batch."""
    if request.state not in (RequestState.FAILED, RequestState.EXPIRED, RequestState.CANCELLED):
        raise Refused("invalid_state", f"a request that is {request.state} can't be retried")
    rows = Request.objects.filter(pk=request.pk)
    _one(endings.requeue(rows, reason=reason or "retried", now=now, by=by), request)
    return request


def _one(moved: int, request: Request) -> None:
    request.refresh_from_db()
    if not moved:
        raise Refused("invalid_state", f"the request is {request.state} by now")


__all__ = [
    "Refused",
    "cancel_batch",
    "cancel_request",
    "delete_batch",
    "restart_batch",
    "retry_request",
    "seal",
]
