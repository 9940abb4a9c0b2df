"""What the provider says becomes what we know: poll, download, settle.

``poll_due`` reads statuses; ``collect_due`` fetches the files of a finished batch and settles each
request from its line (``settling``), then decides what becomes of requests without one. Nothing that
was paid for is thrown away: answers of expired and cancelled batches count like any other.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import models, transaction

from batching import adoption, capacity, endings, polling, settling, submission, turnaround
from batching.claims import each, hold, note, pause
from batching.gateway import connect, note_success, note_trouble
from batching.lifecycle import Actor, BatchState, move, move_many
from batching.models import Batch, Request
from batching.providers.base import NotFound, Provider, ProviderError, RemoteBatch, Status

logger = logging.getLogger(__name__)

_POLLER = Actor(name="poll")
_COLLECTOR = Actor(name="collection")
_TOKEN_LIMIT_FIRST, _TOKEN_LIMIT_TRIES = timedelta(minutes=5), 5
_MISSING_LOOKS, _MISSING_PAUSE = 1, timedelta(seconds=30)
"""How often a completed batch is read again when answers are missing, before they are given up."""
_LOST_FILE_LOOKS = 8
"""The same when the provider says that it has no such file: over some twenty minutes."""
_FINISHED = (
    BatchState.COMPLETED,
    BatchState.EXPIRED,
    BatchState.CANCELLED,
    BatchState.DOWNLOADING,
)
_ENDS = {
    Status.COMPLETED: "complete",
    Status.EXPIRED: "expire",
    Status.CANCELLED: "cancelled_by_provider",
}


def poll_due(now: datetime) -> int:
    """Ask the provider about every batch that is due for a look; return how many were asked for."""
    held = polling.at_provider().due(now, BatchState.PROCESSING, BatchState.CANCELLING)
    look = partial(_poll, sweep=polling.Sweep(now))
    return each(held.select_related("lane__account"), look, now=now)


def collect_due(now: datetime) -> int:
    """Fetch and settle the answers of every finished batch that is due; return how many."""
    finished = Batch.objects.due(now, *_FINISHED).select_related("lane__account")
    return each(finished, _collect, now=now)


def _poll(batch: Batch, now: datetime, *, sweep: polling.Sweep) -> None:
    provider = connect(batch.lane.account)
    try:
        remote = _looked_at(batch, provider, now, sweep)
    except ProviderError as error:
        if not sweep.is_about_account(batch, error):
            raise
        _wait_for_answer(batch, error, now)
        return
    if remote is None:
        return
    note_success(batch.lane.account, now)
    polling.answered(batch, now)
    is_to_stop = batch.state == BatchState.CANCELLING and not batch.is_unproven
    if is_to_stop and remote.status.may_be_cancelled:
        remote = provider.cancel(batch.provider_batch_id)  # it was not heard the first time
    facts = _facts(batch, remote, now)
    if not remote.status.is_final:
        note(batch, **facts, next_attempt_at=polling.next_look(batch, now, status=remote.status))
    elif remote.has_answers or batch.state == BatchState.CANCELLING:
        _finished(batch, remote, facts, now)
    elif remote.is_queue_full:
        _back_off(batch, remote, facts, now)
    else:
        note(batch, **facts)
        submission.refuse(batch, remote.errors, _refusal(remote), now)


def _wait_for_answer(batch: Batch, error: ProviderError, now: datetime) -> None:
    """The provider can't be asked about any batch of the account: none changes, all say why."""
    note_trouble(batch.lane.account, error, now)
    at = polling.put_off(batch, error, now)
    note(
        batch,
        tries=batch.tries + 1,
        next_attempt_at=at,
        wait_reason=polling.held_up(batch.lane.account, error),
        last_error=str(error)[:2000],
    )


def _looked_at(
    batch: Batch, provider: Provider, now: datetime, sweep: polling.Sweep
) -> RemoteBatch | None:
    """Return the provider's batch; None when it was adopted unproven, and turned out to be a stranger's."""
    try:
        remote = sweep.look(batch, provider)
    except NotFound:
        if not batch.is_unproven:
            raise
        adoption.let_go(batch, now)
        return None
    if batch.is_unproven and remote.status.is_final:
        return remote if adoption.confirm(batch, provider, remote, now) else None
    return remote


def _facts(batch: Batch, remote: RemoteBatch, now: datetime) -> dict[str, Any]:
    """What the provider shows, as fields of the batch; what it does not say stays as it was."""
    said = {
        "provider_total": remote.counts.total,
        "provider_completed": remote.counts.completed,
        "provider_failed": remote.counts.failed,
        "provider_expires_at": remote.expires_at,
        "output_file_id": remote.output_file_id,
        "error_file_id": remote.error_file_id,
    }
    if remote.usage is not None:
        said |= {
            "input_tokens": remote.usage.input_tokens,
            "cached_tokens": remote.usage.cached_tokens,
            "output_tokens": remote.usage.output_tokens,
            "reasoning_tokens": remote.usage.reasoning_tokens,
        }
    facts: dict[str, Any] = {field: value for field, value in said.items() if value is not None}
    if remote.status is Status.UNKNOWN:
        logger.warning(
            "unknown provider status, treated as running",
            extra={"batch": batch.key, "status": remote.raw_status[:60]},
        )
    if remote.counts.completed:
        facts["token_limit_tries"] = 0
    return facts | {
        "provider_status": remote.raw_status[:60],
        "provider_object": dict(remote.raw),
        "polled_at": now,
        "tries": 0,
        "last_error": "",
        "wait_reason": "",
    }


def _finished(batch: Batch, remote: RemoteBatch, facts: dict[str, Any], now: datetime) -> None:
    move(
        batch,
        _ENDS.get(
            remote.status, "cancelled_by_provider"
        ),  # failed half-way, or while it was stopped
        reason=f"the provider says {remote.raw_status}",
        by=_POLLER,
        now=now,
        next_attempt_at=now,
        **facts,
    )
    logger.info("provider finished", extra={"batch": batch.key, "status": remote.raw_status})


def _back_off(batch: Batch, remote: RemoteBatch, facts: dict[str, Any], now: datetime) -> None:
    """The provider's token queue is full: the same file goes again later, its requests with it."""
    tries = batch.token_limit_tries + 1
    capacity.refused(batch, now)
    note(batch, **facts)
    if tries > _TOKEN_LIMIT_TRIES:
        submission.fail(
            batch,
            f"token limit retries exhausted after {_TOKEN_LIMIT_TRIES}: {_refusal(remote)}",
            now,
        )
        return
    at = now + _TOKEN_LIMIT_FIRST * 2 ** (tries - 1)
    with transaction.atomic():
        move(
            batch,
            "back_off",
            reason=f"the provider's token queue is full, try {tries} of {_TOKEN_LIMIT_TRIES}",
            by=_POLLER,
            now=now,
            provider_batch_id="",
            token_limit_tries=tries,
            wait_reason=f"the provider's token queue is full; next try at {at:%H:%M} UTC",
            waiting_since=batch.waiting_since or now,
            next_attempt_at=at,
        )
        reason = "the provider's token queue is full"
        move_many(_unanswered(batch), "requeue", reason=reason, by=_POLLER, now=now)


def _refusal(remote: RemoteBatch) -> str:
    said = [
        f"{e.code or 'error'}{f' in line {e.line}' if e.line else ''}: {e.message}"
        for e in remote.errors[:5]
    ]
    return "the provider refused it: " + ("; ".join(said) or "no reason given")


def _collect(batch: Batch, now: datetime) -> None:
    provider = connect(batch.lane.account)
    tells_all = provider.traits.answers_every_request
    if batch.state != BatchState.DOWNLOADING:
        has_files = batch.output_file_id or batch.error_file_id
        if not has_files and not tells_all and _ends_unanswered(batch, now):
            return
        move(batch, "download", reason="its files are there", by=_COLLECTOR, now=now)
    if batch.ignored_lines:
        note(batch, ignored_lines=0)  # the files are read from their beginnings, and counted anew
    lost = _settle_files(batch, provider, now)
    tells_all = tells_all or bool(lost)
    tells_all = tells_all or batch.provider_status.lower() == Status.COMPLETED
    if tells_all and _unanswered(batch).exists():
        why = lost or "the provider finished the batch without an answer to this request"
        if batch.missing_looks < (_LOST_FILE_LOOKS if lost else _MISSING_LOOKS):
            _look_again(batch, why, now)
            return
        _give_up_missing(batch, why, now)
    with transaction.atomic():
        _send_back_unanswered(batch, now)
        settling.finish(batch, now, by=_COLLECTOR)
    capacity.completed(batch, now)
    turnaround.learn(batch, now)
    _forget_files(batch)


def _ends_unanswered(batch: Batch, now: datetime) -> bool:
    """Expired or cancelled without a single answer: its requests go on, the batch ends here."""
    if batch.state == BatchState.COMPLETED:
        return False
    with transaction.atomic():
        note(batch, next_attempt_at=None)
        _send_back_unanswered(batch, now)
    return True


def _settle_files(batch: Batch, provider: Provider, now: datetime) -> str:
    """Settle what the batch's files say; return what the provider said of one it does not have, else nothing."""
    lost = ""
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        try:
            _settle_file(batch, provider, file_id, now)
        except NotFound as error:
            lost = f"the provider no longer has all of the batch's answers: {error}"
    return lost


def _settle_file(batch: Batch, provider: Provider, file_id: str, now: datetime) -> None:
    path = settling.answer_path(batch, file_id)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        provider.download(file_id, into=path)
    for chunk in settling.chunks(provider.read_answers(path)):
        with transaction.atomic():
            hold(batch)
            ignored = settling.settle(batch, chunk, now)
            if ignored:
                note(batch, ignored_lines=batch.ignored_lines + ignored)


def _unanswered(batch: Batch) -> models.QuerySet[Request]:
    return Request.objects.filter(batch=batch, state="processing")


def _look_again(batch: Batch, why: str, now: datetime) -> None:
    """Answers are missing: fetch the files anew before believing it."""
    _forget_files(batch)
    missing, looks = _unanswered(batch).count(), batch.missing_looks
    note(
        batch,
        missing_looks=looks + 1,
        next_attempt_at=now + max(_MISSING_PAUSE, pause(looks)),
        last_error=f"{missing:,} answers are missing in the provider's files; looking again ({why})",
    )


def _give_up_missing(batch: Batch, why: str, now: datetime) -> None:
    """Fail what has no answer. It may have been run, so only a person has it sent again."""
    rows = _unanswered(batch)
    missing = endings.end(
        rows, "fail", code="missing_in_output", message=why, now=now, by=_COLLECTOR
    )
    logger.error("answers missing", extra={"batch": batch.key, "missing": missing})


def _send_back_unanswered(batch: Batch, now: datetime) -> None:
    """Requests that were never run: cancelled when someone asked for that, else sent again."""
    unanswered = _unanswered(batch)
    if batch.cancel_asked:
        settling.cancel_unanswered(unanswered, now)
        return
    settling.requeue_or_end(
        unanswered, code=f"batch_{batch.provider_status.lower()}"[:100],
        message=f"not run in batch {batch.key}", now=now,
        how="fail" if batch.provider_status.lower() == Status.FAILED else "expire",
    )  # fmt: skip


def _forget_files(batch: Batch) -> None:
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        settling.answer_path(batch, file_id).unlink(missing_ok=True)
