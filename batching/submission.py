"""A sealed batch goes to the provider: its requests become a file, the file is uploaded, a batch made of it.

Each step is claim → call → record. The intent is committed before a call, so whoever finds a lapsed
intent looks at the provider first and acts second: a file is found by its name here, a batch in
``adoption``. A provider that takes no files gets the lines with the create, from the file on our disk. No
call is made while a transaction is open, none is repeated blindly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction

from batching import admission, capacity, endings, inputfile, splitting
from batching.claims import each, guarded, hold, note, pause, renewed
from batching.gateway import connect, note_success, note_trouble
from batching.lifecycle import Actor, BatchState, RequestState, move, move_many
from batching.models import Batch, Request
from batching.overrides import effective
from batching.polling import answered, fell_silent, first_poll
from batching.providers.base import (
    Provider,
    ProviderError,
    QueueFull,
    RemoteBatch,
    RemoteError,
    Source,
    TakesFiles,
    Trouble,
)

logger = logging.getLogger(__name__)

_UPLOADER = Actor(name="upload")
_SUBMITTER = Actor(name="submission")
_REFUSALS_BEFORE_FAILING = 5
_BAD_CONTENT = frozenset({400, 413, 422})
"""HTTP statuses that may be owed to the lines that a call carried."""
_FIRST_LOOK = timedelta(seconds=10)
"""After a create that broke off: when to look whether it had its effect."""
KEY, INTENT = "batcher_batch", "batcher_intent"
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


def _upload(batch: Batch, now: datetime) -> None:
    if batch.deaths > effective("BATCHER_MAX_WORKER_DEATHS"):
        refuse(batch, (), f"{batch.deaths - 1} workers in a row died over its file", now)
        return
    provider = connect(batch.lane.account)
    file = inputfile.write(batch, provider)
    if file.lines == 0:
        inputfile.discard(batch)
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
    if not isinstance(provider, TakesFiles):
        _uploaded(batch, file, "", now)
        return
    try:
        file_id = _upload_once(provider, batch, file.path, was_tried=was_tried)
    except ProviderError as error:
        if error.trouble is not Trouble.REFUSED or _may_upload_again(batch):
            raise
        _refuse_call(batch, error, f"the provider refuses its file: {error}", now)
        return
    finally:
        inputfile.discard(batch)
    note_success(batch.lane.account, now)
    _uploaded(batch, file, file_id, now)


def _may_upload_again(batch: Batch) -> bool:
    """True until a refusal is sure; a part of a refused batch is believed at once."""
    return batch.origin_id is None and batch.tries + 1 < _REFUSALS_BEFORE_FAILING


def _upload_once(provider: TakesFiles, batch: Batch, path: Path, *, was_tried: bool) -> str:
    """Return the id of the file at the provider: found where an earlier try may have left it, else sent."""
    found = provider.find_file(batch.filename) if was_tried else None
    return (found or provider.upload(path, filename=batch.filename)).id


def _uploaded(batch: Batch, file: inputfile.InputFile, file_id: str, now: datetime) -> None:
    """Record that the file is ready, unless it holds a request that was taken back since.

    Without ``file_id`` it is ready on our disk, and goes with the create.
    """
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
            input_file_id=file_id,
            tries=0,
            last_error="",
            next_attempt_at=now,
        )


def _create(batch: Batch, now: datetime) -> None:
    # A worker that was stopped for minutes after its intent finds the claim gone: others look for it.
    note(batch, next_attempt_at=now + admission.CREATE_LEASE)
    try:
        with renewed(batch):  # lines that go with the create take as long as an upload
            provider = connect(batch.lane.account)
            remote = provider.create(
                source=_source(batch, provider),
                endpoint=batch.lane.endpoint,
                metadata={KEY: batch.key, INTENT: intent(batch)},
            )
    except ProviderError as error:
        note_trouble(batch.lane.account, error, now)
        note(batch, lost_creates=0)
        _not_created(batch, error, now)
        return
    note_success(batch.lane.account, now)
    accepted(batch, remote, "created", now)
    answered(batch, now)


def _source(batch: Batch, provider: Provider) -> Source:
    """Return the requests for the create. Raises ProviderError when they are others than before."""
    if isinstance(provider, TakesFiles):
        return Source(file_id=batch.input_file_id)
    file = inputfile.kept(batch, provider)
    if file is None:
        raise ProviderError(
            "its requests are not those it was sealed with", trouble=Trouble.REFUSED
        )
    return Source(path=file)


def _not_created(batch: Batch, error: ProviderError, now: datetime) -> None:
    if error.trouble is Trouble.UNKNOWN:
        logger.warning("creation in doubt", extra={"batch": batch.key, "error": str(error)[:200]})
        fell_silent(batch.lane.account, error, now)
        doubt = f"creation in doubt, looking for it: {error}"[:2000]
        note(batch, last_error=doubt, next_attempt_at=now + _FIRST_LOOK)
        return
    if error.trouble is Trouble.REFUSED:
        _refuse_call(batch, error, f"the provider refuses it: {error}", now)
        return
    if isinstance(error, QueueFull):
        capacity.refused(batch, now)
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


def accepted(
    batch: Batch, remote: RemoteBatch, how: str, now: datetime, *, is_unproven: bool = False
) -> None:
    """Record that the provider holds the batch; its pending requests are processing from here."""
    facts = {
        "is_unproven": is_unproven,
        "lost_creates": 0,
        "doubtful_since": batch.doubtful_since if is_unproven else None,
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
    if not is_unproven:
        inputfile.discard(batch)
    logger.info("batch accepted", extra={"batch": batch.key, "how": how})


def intent(batch: Batch) -> str:
    """Return the name of the present intent to create: its moment, which is committed before the call."""
    return batch.create_started_at.isoformat() if batch.create_started_at else ""


def _refuse_call(batch: Batch, error: ProviderError, reason: str, now: datetime) -> None:
    """A call was refused: for the lines that it carried, or for something that parts would not mend."""
    if error.status not in _BAD_CONTENT or batch.input_file_id:  # a file's lines are judged later
        fail(batch, reason, now)
        return
    refuse(batch, (RemoteError(code=error.code, message=str(error)),), reason, now)


def refuse(batch: Batch, errors: Sequence[RemoteError], reason: str, now: datetime) -> None:
    """None of a batch was taken: send it again in parts, or fail it where that can't help."""
    inputfile.discard(batch)
    try:
        splitting.take_apart(batch, errors, reason, now, by=_SUBMITTER)
    except splitting.Whole as why:
        code = next((error.code for error in errors if error.code), "batch_failed")
        fail(batch, f"{reason}{why}", now, code=code)


def fail(batch: Batch, reason: str, now: datetime, *, code: str = "batch_failed") -> None:
    """Fail a batch and every request of it that still waits for an answer, with this code."""
    inputfile.discard(batch)
    with transaction.atomic():
        move(
            batch,
            "fail",
            reason=reason[:1000],
            by=_SUBMITTER,
            now=now,
            last_error=reason[:2000],
            next_attempt_at=None,
        )
        failed = endings.end(
            Request.objects.filter(batch=batch).undecided(),
            "fail",
            code=code[:100],
            message=reason,
            now=now,
            by=_SUBMITTER,
        )
    logger.error(
        "batch failed", extra={"batch": batch.key, "requests": failed, "reason": reason[:200]}
    )
