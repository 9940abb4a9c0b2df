"""What a crash or a lost reply left at the provider: find the batch that may have been created, and adopt it.

Whether a batch exists that nobody told us of is a question of money, so it is looked for again and
again before it is asked for once more. Most providers show what we wrote on a batch. Where one shows
nothing (``Traits.tags_batches``), a batch is told by its size and its time; its answers, when they are
there, prove whose it is, and until then it is held for ours and never stopped: it may be somebody
else's (docs/decisions/0005-a-batch-without-a-name.md). Never creates a batch.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from batching import audit, endings, inputfile, polling, settling, submission
from batching.claims import each, note
from batching.gateway import connect
from batching.lifecycle import Actor, BatchState, move, move_many
from batching.models import Batch, Request
from batching.overrides import effective
from batching.providers.base import NotFound, Provider, RemoteBatch, TakesFiles

logger = logging.getLogger(__name__)

_ADOPTER = Actor(name="adoption")
_LIST_MARGIN = timedelta(minutes=15)
_LOOKS = tuple(timedelta(minutes=m) for m in (2, 5, 10, 15))
"""After a doubtful create: when to look again, counted from the call. A list may lag."""
_LOOKS_BY_NAME = tuple(timedelta(seconds=s) for s in (10, 30, 120, 300, 600))
"""The same where batches show whose they are: what is there is ours for certain, and soon in the list."""
_LINES_ASKED = 100


def adopt_due(now: datetime) -> int:
    """Look for provider batches whose creation is in doubt; return how many were looked for."""
    doubtful = Batch.objects.due(now, BatchState.SUBMITTING, BatchState.CANCELLING)
    doubtful = doubtful.filter(provider_batch_id="").select_related("lane__account")
    return each(doubtful, _adopt, now=now)


def confirm(batch: Batch, provider: Provider, remote: RemoteBatch, now: datetime) -> bool:
    """Ask the answers of an ended batch that was adopted unproven whose it is; let go of a stranger's.

    Return whether it is kept. One without answers can't be told and is kept: nothing is bought twice.
    """
    if _is_proven(batch, provider, remote) is False:
        let_go(batch, now)
        return False
    note(batch, is_unproven=False, doubtful_since=None)
    inputfile.discard(batch)
    return True


def let_go(batch: Batch, now: datetime) -> None:
    """Give a batch back that turned out to be a stranger's: the doubt is where it was before."""
    logger.warning(
        "adopted batch is a stranger's",
        extra={"batch": batch.key, "provider_batch": batch.provider_batch_id},
    )
    reason = f"{batch.provider_batch_id} belongs to someone else"
    facts = {
        "provider_batch_id": "",
        "provider_status": "",
        "provider_object": None,
        "provider_expires_at": None,
        "is_unproven": False,
        "next_attempt_at": now,
    }
    with transaction.atomic():
        if batch.state == BatchState.CANCELLING:
            note(batch, **facts)
        else:
            move(batch, "let_go", reason=reason, by=_ADOPTER, now=now, **facts)
        held = Request.objects.filter(batch=batch, state="processing")
        move_many(held, "requeue", reason=reason, by=_ADOPTER, now=now)


def _adopt(batch: Batch, now: datetime) -> None:
    """Look at the provider for a batch that may have been created; never create here."""
    if batch.doubtful_since is None:
        note(batch, doubtful_since=now)
    started = batch.create_started_at or batch.state_changed_at
    provider = connect(batch.lane.account)
    shown = list(provider.list_batches(since=started - _LIST_MARGIN))
    polling.answered(batch, now)
    if provider.traits.tags_batches:
        found, is_proven = [remote for remote in shown if _is_ours(remote, batch)], True
    else:
        found, is_proven = _alike(batch, provider, shown)
    if found:
        oldest, *extra = sorted(found, key=lambda r: (r.created_at or now, r.id))
        if is_proven:
            _cancel_extra(provider, batch, extra)
            if batch.state == BatchState.CANCELLING and not oldest.status.is_final:
                provider.cancel(oldest.id)  # before it counts as found: else nobody would ask again
        how = "found" if is_proven else "found by its size and time, to be proven by its answers,"
        submission.accepted(batch, oldest, how, now, is_unproven=not is_proven)
        return
    looks = _LOOKS_BY_NAME if provider.traits.tags_batches else _LOOKS
    # A call that took long began to be doubtful late: what follows is counted from there.
    counted_from = max(started, (batch.doubtful_since or now) - looks[0])
    next_look = next((counted_from + look for look in looks if counted_from + look > now), None)
    if next_look is not None:
        note(batch, next_attempt_at=next_look)
        return
    _never_arrived(batch, looks[-1], now)


def _is_ours(remote: RemoteBatch, batch: Batch) -> bool:
    """True when this intent made it; servers that keep no metadata are matched by the input file."""
    if submission.INTENT in remote.metadata:
        return (
            remote.metadata[submission.INTENT] == submission.intent(batch)
            and remote.metadata.get(submission.KEY) == batch.key
        )
    is_earlier_one = (batch.provider_object or {}).get("id") == remote.id
    return remote.input_file_id == batch.input_file_id and not is_earlier_one


def _alike(
    batch: Batch, provider: Provider, shown: list[RemoteBatch]
) -> tuple[list[RemoteBatch], bool]:
    """Return the batches that may be this one, and whether that is proven.

    As many requests, and no batch of ours has it or had it. Answers decide at once for those that
    have ended, also when another batch of ours holds one unproven; of those that run, any may be ours.
    """
    alike = [remote for remote in shown if remote.counts.total == batch.request_count]
    held, held_unproven = _held([remote.id for remote in alike])
    unproven = []
    for remote in alike:
        if remote.id in held or (remote.id in held_unproven and not remote.status.is_final):
            continue
        verdict = _is_proven(batch, provider, remote) if remote.status.is_final else None
        if verdict:
            return [remote], True
        if verdict is None:
            unproven.append(remote)
    return unproven, False


def _held(ids: list[str]) -> tuple[set[str], set[str]]:
    """Return which of these provider batches are or were ours, and which are held for ours."""
    rows = Batch.objects.filter(Q(provider_batch_id__in=ids) | Q(provider_object__id__in=ids))
    certain, unproven = set[str](), set[str]()
    for row in rows.values_list("provider_batch_id", "provider_object__id", "is_unproven"):
        (unproven if row[2] else certain).update(filter(None, row[:2]))
    return certain, unproven


def _is_proven(batch: Batch, provider: Provider, remote: RemoteBatch) -> bool | None:
    """Tell by the ids in its answers whether a batch is this one; None when there are none to read."""
    if remote.output_file_id is None:
        return None
    path = settling.answer_path(batch, remote.output_file_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        provider.download(remote.output_file_id, into=path)
    except NotFound:
        return None
    answers = zip(range(_LINES_ASKED), provider.read_answers(path), strict=False)
    ids = [answer.custom_id for _, answer in answers if answer.custom_id]
    is_ours = Request.objects.filter(batch=batch, key__in=ids).exists()
    if not is_ours:
        path.unlink(missing_ok=True)  # what is ours is read from there later
    return is_ours if ids else None


def _cancel_extra(provider: Provider, batch: Batch, extra: list[RemoteBatch]) -> None:
    for remote in extra:
        logger.error(
            "batch exists twice at provider", extra={"batch": batch.key, "extra": remote.id}
        )
        try:
            provider.cancel(remote.id)
        except NotFound:
            continue


def _never_arrived(batch: Batch, looked_for: timedelta, now: datetime) -> None:
    if batch.state == BatchState.CANCELLING:
        with transaction.atomic():
            move(batch, "cancelled_by_provider", reason="it never reached the provider",
                 by=_ADOPTER, now=now, next_attempt_at=None)  # fmt: skip
            endings.end(
                Request.objects.filter(batch=batch).undecided(),
                "cancel", code="cancelled", message="its batch was cancelled", now=now,
                by=_ADOPTER,
            )  # fmt: skip
        inputfile.discard(batch)
        return
    logger.error("created batch never appeared", extra={"batch": batch.key})
    if batch.lost_creates >= effective("BATCHER_MAX_WORKER_DEATHS"):
        _give_up(batch, now)
        return
    minutes = looked_for.total_seconds() / 60
    move(
        batch,
        "not_accepted",
        reason=f"the provider shows no such batch, {minutes:.0f} minutes after it was asked for one",
        by=_ADOPTER,
        now=now,
        next_attempt_at=now,
        doubtful_since=None,
        wait_reason="its creation was lost; it will be asked for again",
    )


def _give_up(batch: Batch, now: datetime) -> None:
    """Ask no more for a batch over whose creation worker after worker died.

    Its lines may kill them only where they go with the create: there it is taken apart, as at an upload. Else
    something about the hosts does, and it waits for a person: to fail it would fail all batches of a bad hour.
    """
    died = f"{batch.lost_creates} workers in a row died while they created it"
    if not isinstance(connect(batch.lane.account), TakesFiles):
        submission.refuse(batch, (), died, now)
        return
    reason = f"by Batcher: {died}; see the workers' log, then resume it"
    with transaction.atomic():
        move(batch, "not_accepted", reason=died, by=_ADOPTER, now=now, next_attempt_at=now,
             doubtful_since=None, lost_creates=0, paused_at=now, pause_reason=reason,
             wait_reason=f"paused: {reason}", waiting_since=batch.waiting_since or now)  # fmt: skip
        audit.record("batch.pause", by=_ADOPTER, row=batch, reason=died)
