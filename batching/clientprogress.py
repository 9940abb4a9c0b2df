"""How far a client's batch is: its counts, its tokens, and the files that can be read so far.

Counted from its requests while it runs, read from its row once it has ended. Asked by the doors and by
`clientbatch`; changes nothing but that a file is made when there is first something in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db.models import Count, F, Q, Sum
from django.utils import timezone

from batching import resultfile
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Answer, ClientFile, Request, Submission


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many requests a client's batch has, and how many have ended well and badly."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    """All bad ends; those below among them."""
    cancelled: int = 0
    expired: int = 0


def usage(batch: Submission) -> dict[str, int | None]:
    """Return the tokens of all its good answers."""
    answers = Answer.objects.filter(
        request__submission=batch,
        request__state__in=resultfile.GOOD_ENDS,
        attempt=F("request__attempt"),
    )
    names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    found: dict[str, int | None] = answers.aggregate(**{name: Sum(name) for name in names})
    return found


def output_file(batch: Submission, side: str) -> ClientFile:
    """Return the file of that side of a client's batch; made when it is first asked for."""
    file, _ = ClientFile.objects.get_or_create(
        submission=batch,
        side=side,
        defaults={
            "project_id": batch.project_id,
            "purpose": "batch_output",
            "filename": f"batch_{batch.key.removeprefix('sub_')}_{side}.jsonl",
        },
    )
    return file


def files(batches: list[Submission], counted: dict[int, Counts]) -> dict[int, dict[str, str]]:
    """Return the keys of the files that have something in them, by batch and side.

    While a batch runs, its file is made when there is first something to read in it.
    """
    for batch in batches:
        if not batch.is_final and counted[batch.pk].completed:
            output_file(batch, ClientFile.Side.OUTPUT)
        if not batch.is_final and counted[batch.pk].failed:
            output_file(batch, ClientFile.Side.ERRORS)
    there = ClientFile.objects.there(timezone.now()).filter(submission__in=batches)
    found: dict[int, dict[str, str]] = {}
    for pk, side, key in there.values_list("submission_id", "side", "key"):
        found.setdefault(pk or 0, {})[side] = key
    return found


def counts(batches: list[Submission]) -> dict[int, Counts]:
    """Return the counts of client batches by their primary key: one query for all that still run."""
    ended = {
        batch.pk: Counts(
            total=batch.accepted,
            completed=batch.completed_count or 0,
            failed=batch.failed_count or 0,
            cancelled=batch.cancelled_count or 0,
            expired=batch.expired_count or 0,
        )
        for batch in batches
        if batch.is_final
    }
    running = {batch.pk: batch for batch in batches if batch.pk not in ended}
    if not running:
        return ended
    found = {batch.pk: Counts() for batch in running.values()} | _tallied(running)
    for pk, batch in running.items():
        is_read = batch.in_progress_at or batch.cancelling_at  # before that, it counts nothing
        seen = found[pk] if is_read else Counts()
        ended[pk] = replace(seen, total=batch.accepted or seen.completed + seen.failed)
    return ended


def _tallied(batches: Iterable[int]) -> dict[int, Counts]:
    """Count the ends of batches' requests; one with no request yet is left out."""
    kinds = {
        "completed": resultfile.GOOD_ENDS,
        "failed": BAD_ENDS,
        "cancelled": (RequestState.CANCELLED,),
        "expired": (RequestState.EXPIRED,),
    }
    counted = {name: Count("pk", filter=Q(state__in=states)) for name, states in kinds.items()}
    rows = Request.objects.filter(submission__in=batches).order_by().values("submission_id")
    tallies = rows.annotate(**counted).values_list("submission_id", *kinds)
    return {pk: Counts(**dict(zip(kinds, tally, strict=True))) for pk, *tally in tallies}
