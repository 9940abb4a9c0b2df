"""A sealed batch goes to the provider: upload its file, create its batch, or find what a crash left.

Each step is claim → call → record. The intent is committed before a call, so whoever finds a lapsed
intent looks at the provider first and acts second: a file is found by its name, a batch by its input
file or our key in its metadata. No call is made while a transaction is open, none is repeated blindly.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction

from batching import admission, endings, inputfile
from batching.claims import each, guarded, hold, note, pause
from batching.gateway import connect, note_success, note_trouble
from batching.lifecycle import Actor, BatchState, RequestState, move, move_many
from batching.models import Batch, Request
from batching.polling import first_poll
from batching.providers.base import (
    NotFound,
    Provider,
    ProviderError,
    RemoteBatch,
    RemoteFile,
    Trouble,
)

logger = logging.getLogger(__name__)

_UPLOADER = Actor(name="upload")
_SUBMITTER = Actor(name="submission")
_REFUSALS_BEFORE_FAILING = 5
_LIST_MARGIN = timedelta(minutes=15)
_LOOKS = (timedelta(minutes=2), timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=15))
"""After a doubtful create: when to look again, counted from the call. A list may lag."""
_KEY, _INTENT = "batcher_batch", "batcher_intent"
"""What we write on a provider batch: which batch of ours, and which of our intents to create it."""


def upload_due(now: datetime) -> int:
    """Upload the file of every sealed batch that is due; return how many were tried."""
    sealed = Batch.objects.due(now, BatchState.UPLOADING).select_related("lane__account")
    return each(sealed, _upload, now=now)


def submit_due(now: datetime) -> int:
    """Create the provider batch of every batch that admission lets go; return how many."""
    created = 0
    for batch in admission.next_up(now):
        created += 1
        guarded(_create, batch, batch.create_started_at or now)
    return created


def adopt_due(now: datetime) -> int:
    """Look for provider batches whose creation is in doubt; return how many were looked for."""
    doubtful = Batch.objects.due(now, BatchState.SUBMITTING, BatchState.CANCELLING)
    doubtful = doubtful.filter(provider_batch_id="").select_related("lane__account")
    return each(doubtful, _adopt, now=now)


def _upload(batch: Batch, now: datetime) -> None:
    provider = connect(batch.lane.account)
    file = inputfile.write(batch, provider)
    if file.lines == 0:
        file.path.unlink()
        move(batch, "cancel", reason="no request left in it", by=_UPLOADER, now=now,
             next_attempt_at=None)  # fmt: skip
        return
    was_tried = batch.upload_started_at is not None and batch.input_sha256 == file.sha256
    note(
        batch,
        input_sha256=file.sha256,
        upload_started_at=now,
        request_count=file.lines,
        size_bytes=file.size_bytes,
    )
    try:
        remote = provider.find_file(batch.filename) if was_tried else None
        remote = remote or provider.upload(file.path, filename=batch.filename)
    except ProviderError as error:
        if error.trouble is Trouble.REFUSED and batch.tries + 1 >= _REFUSALS_BEFORE_FAILING:
            fail(batch, f"the provider refuses its file: {error}", now)
            return
        raise
    finally:
        file.path.unlink(missing_ok=True)
    note_success(batch.lane.account)
    _uploaded(batch, file, remote, now)


def _uploaded(batch: Batch, file: inputfile.InputFile, remote: RemoteFile, now: datetime) -> None:
    """Record that the provider holds the file, unless it holds a request that was taken back since."""
    with transaction.atomic():
        hold(batch)
        if batch.requests.filter(state=RequestState.PENDING).count() != file.lines:
            note(batch, next_attempt_at=now)
            return
        move(
            batch,
            "uploaded",
            reason=f"{file.lines:,} lines, {file.size_bytes:,} bytes",
            by=_UPLOADER,
            now=now,
            input_file_id=remote.id,
            tries=0,
            last_error="",
            next_attempt_at=now,
        )


def _create(batch: Batch, now: datetime) -> None:
    # A worker that was stopped for minutes after its intent finds the claim gone: others look for it.
    note(batch, next_attempt_at=now + admission.CREATE_LEASE)
    try:
        remote = connect(batch.lane.account).create(
            input_file_id=batch.input_file_id,
            endpoint=batch.lane.endpoint,
            metadata={_KEY: batch.key, _INTENT: _intent(batch)},
        )
    except ProviderError as error:
        note_trouble(batch.lane.account, error, now)
        _not_created(batch, error, now)
        return
    note_success(batch.lane.account)
    _accepted(batch, remote, "created", now)


def _not_created(batch: Batch, error: ProviderError, now: datetime) -> None:
    if error.trouble is Trouble.UNKNOWN:
        logger.warning("creation in doubt", extra={"batch": batch.key, "error": str(error)[:200]})
        note(batch, last_error=f"creation in doubt, looking for it: {error}"[:2000])
        return
    if error.trouble is Trouble.REFUSED:
        fail(batch, f"the provider refuses it: {error}", now)
        return
    move(
        batch,
        "not_accepted",
        reason=str(error)[:300],
        by=_SUBMITTER,
        now=now,
        tries=batch.tries + 1,
        next_attempt_at=now + pause(batch.tries, error.after_s),
        wait_reason=f"the provider said no: {error}"[:300],
        waiting_since=batch.waiting_since or now,
        last_error=str(error)[:2000],
    )


def _accepted(batch: Batch, remote: RemoteBatch, how: str, now: datetime) -> None:
    """Record that the provider holds the batch; its pending requests are processing from here."""
    facts = {
        "provider_batch_id": remote.id,
        "provider_status": remote.raw_status,
        "provider_expires_at": remote.expires_at,
        "next_attempt_at": first_poll(batch, now),
        "tries": 0,
        "last_error": "",
        "waiting_since": None,
    }
    with transaction.atomic():
        if batch.state == BatchState.CANCELLING:
            note(batch, **facts)
        else:
            move(batch, "accepted", reason=f"{how} as {remote.id}", by=_SUBMITTER, now=now, **facts)
        move_many(
            Request.objects.filter(batch=batch),
            "submitted",
            reason=f"sent in batch {batch.key}",
            by=_SUBMITTER,
            now=now,
        )
    logger.info("batch accepted", extra={"batch": batch.key, "how": how})


def _adopt(batch: Batch, now: datetime) -> None:
    """Look at the provider for a batch that may have been created; never create here."""
    started = batch.create_started_at or batch.state_changed_at
    provider = connect(batch.lane.account)
    found = [r for r in provider.list_batches(since=started - _LIST_MARGIN) if _is_ours(r, batch)]
    if found:
        oldest, *extra = sorted(found, key=lambda r: (r.created_at or now, r.id))
        _cancel_extra(provider, batch, extra)
        if batch.state == BatchState.CANCELLING:
            provider.cancel(oldest.id)  # before it counts as found: else nobody would ask again
        _accepted(batch, oldest, "found", now)
        return
    next_look = next((started + look for look in _LOOKS if started + look > now), None)
    if next_look is not None:
        note(batch, next_attempt_at=next_look)
        return
    _never_arrived(batch, now)


def _intent(batch: Batch) -> str:
    """Return the name of the present intent to create: its moment, which is committed before the call."""
    return batch.create_started_at.isoformat() if batch.create_started_at else ""


def _is_ours(remote: RemoteBatch, batch: Batch) -> bool:
    """True when this intent made it; servers that keep no metadata are matched by the input file."""
    if _INTENT in remote.metadata:
        return remote.metadata[_INTENT] == _intent(batch) and remote.metadata.get(_KEY) == batch.key
    is_earlier_one = (batch.provider_object or {}).get("id") == remote.id
    return remote.input_file_id == batch.input_file_id and not is_earlier_one


def _cancel_extra(provider: Provider, batch: Batch, extra: list[RemoteBatch]) -> None:
    for remote in extra:
        logger.error(
            "batch exists twice at provider", extra={"batch": batch.key, "extra": remote.id}
        )
        try:
            provider.cancel(remote.id)
        except NotFound:
            continue


def _never_arrived(batch: Batch, now: datetime) -> None:
    if batch.state == BatchState.CANCELLING:
        with transaction.atomic():
            move(batch, "cancelled_by_provider", reason="it never reached the provider",
                 by=_SUBMITTER, now=now, next_attempt_at=None)  # fmt: skip
            endings.end(
                Request.objects.filter(batch=batch).undecided(),
                "cancel", code="cancelled", message="its batch was cancelled", now=now,
                by=_SUBMITTER,
            )  # fmt: skip
        return
    logger.error("created batch never appeared", extra={"batch": batch.key})
    move(
        batch,
        "not_accepted",
        reason="the provider shows no such batch, 15 minutes after it was asked for one",
        by=_SUBMITTER,
        now=now,
        next_attempt_at=now,
        wait_reason="its creation was lost; it will be asked for again",
    )


def fail(batch: Batch, reason: str, now: datetime, *, by: Actor = _SUBMITTER) -> None:
    """Fail a batch and every request of it that still waits for an answer."""
    with transaction.atomic():
        move(
            batch,
            "fail",
            reason=reason[:1000],
            by=by,
            now=now,
            last_error=reason[:2000],
            next_attempt_at=None,
        )
        failed = endings.end(
            Request.objects.filter(batch=batch).undecided(),
            "fail",
            code="batch_failed",
            message=reason,
            now=now,
            by=by,
        )
    logger.error(
        "batch failed", extra={"batch": batch.key, "requests": failed, "reason": reason[:200]}
    )
