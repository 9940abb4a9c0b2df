"""What becomes of a request whose ``deliver_by`` can't be met any more, and which batches go first for theirs.

A deadline is too late when half of its lane's batches take longer than the time that is left (``turnaround``).
Such requests go on waiting, fail with ``deadline_exceeded``, or are answered directly (``direct``), as their
project says; but only while no provider has them. What is being run is paid for: its answer is waited for
and delivered, late or not. Called every few seconds by the clock; ``packing`` seals early by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.db import models, transaction
from django.db.models import F, Max, OuterRef, Q, Subquery

from batching import endings, packing, turnaround
from batching.lifecycle import Actor, BatchState, move_many
from batching.models import Batch, Lane, Project, Request, Turnaround
from batching.models.batches import IN_LINE
from batching.models.projects import DeadlinePolicy
from batching.turnaround import GUESS

logger = logging.getLogger(__name__)

_DEADLINES = Actor(name="deadlines")
_CHUNK = 2_000
_IN_A_FILE = (BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY)
_STILL_OURS = (BatchState.BUILDING, BatchState.UPLOADING)
_NOT_AT_PROVIDER = Q(batch__isnull=True) | Q(batch__state__in=(*_STILL_OURS, *_IN_A_FILE))


def watch(now: datetime) -> int:
    """Let near deadlines go first, and fail what its project wants failed; return how many requests were."""
    _put_in_front(now)
    failed = sum(fail(part, now) for part in late(DeadlinePolicy.FAIL, now))
    if failed:
        logger.warning("deadlines missed", extra={"requests": failed})
    return failed


def _put_in_front(now: datetime) -> None:
    """Mark waiting batches whose nearest deadline is near: they go before others of their priority."""
    waiting = Batch.objects.filter(state__in=IN_LINE, deliver_by__isnull=False, is_near=False)
    lanes = list(waiting.order_by().values_list("lane_id", flat=True).distinct())
    known = turnaround.expected_of(lanes)
    for lane in lanes:
        until = known.get(lane, GUESS).near_until(now)
        waiting.filter(lane_id=lane, deliver_by__lte=until).update(is_near=True)


def late(policy: str, now: datetime) -> Iterator[list[int]]:
    """Yield chunks of pending requests, by number, that can't make it and whose project has this policy.

    Each chunk is of one lane, nearest deadline first. A lane whose requests are not moved by the caller is
    left after its first chunk.
    """
    projects = list(Project.objects.filter(deadline_policy=policy).values_list("pk", flat=True))
    if not projects:
        return
    theirs = Request.objects.with_deadline().filter(project__in=projects)
    lanes = _lanes_with_late(theirs, now)
    known = turnaround.expected_of(lanes)
    for lane in lanes:
        until = known.get(lane, GUESS).too_late_until(now)
        rows = theirs.filter(_NOT_AT_PROVIDER, lane=lane, deliver_by__lte=until)
        rows = rows.order_by("deliver_by", "pk")
        seen: list[int] = []
        while (part := list(rows.values_list("pk", flat=True)[:_CHUNK])) and part != seen:
            yield part
            seen = part


def _lanes_with_late(rows: models.QuerySet[Request], now: datetime) -> list[int]:
    """Return the lanes in which some deadline may be too late: a look into the index for each lane."""
    longest = Turnaround.objects.aggregate(longest=Max("p50_s"))["longest"] or 0
    first = rows.filter(lane=OuterRef("pk"), deliver_by__lte=now + timedelta(seconds=longest))
    nearest = Subquery(first.order_by("deliver_by").values("deliver_by")[:1])
    found = Lane.objects.annotate(nearest=nearest).filter(nearest__isnull=False)
    return list(found.values_list("pk", flat=True))


def fail(requests: Sequence[int], now: datetime) -> int:
    """Fail those of these requests that no provider has; return how many."""
    with transaction.atomic():
        ours, batches = take_back(requests, now)
        failed = endings.end(
            ours,
            "fail",
            code="deadline_exceeded",
            message="its deliver_by can't be met any more; no provider was asked to run it",
            now=now,
            by=_DEADLINES,
        )
        count_again(batches)
    return failed


def take_back(
    requests: Sequence[int], now: datetime
) -> tuple[models.QuerySet[Request], list[Batch]]:
    """Return the pending ones of these requests that no provider has or will get, and the batches they are in.

    A file that holds one is made anew without it: its batch goes back to be uploaded and keeps its place. The
    file at the provider stays behind, costs nothing and expires. Call inside atomic, and ``count_again``
    once the requests have left.
    """
    rows = Request.objects.with_deadline().filter(pk__in=requests)
    theirs = Batch.objects.filter(pk__in=rows.filter(batch__isnull=False).values("batch"))
    # Locked, in one order: no upload counts its file and no admission starts one meanwhile.
    locked = theirs.filter(state__in=(*_STILL_OURS, *_IN_A_FILE)).order_by("pk")
    held = list(locked.select_for_update(of=("self",)))
    in_a_file = [batch.pk for batch in held if batch.state in _IN_A_FILE]
    if in_a_file:
        _remake(in_a_file, now)
    return rows.filter(Q(batch__isnull=True) | Q(batch__in=[batch.pk for batch in held])), held


def _remake(batches: list[int], now: datetime) -> None:
    changes = {
        "fence": F("fence") + 1, "next_attempt_at": now, "tries": 0, "input_sha256": "",
        "input_file_id": "", "upload_started_at": None, "wait_reason": "",
    }  # fmt: skip
    reason = "a request was taken out of it"
    rows = Batch.objects.filter(pk__in=batches)
    move_many(rows, "remake", reason=reason, by=_DEADLINES, now=now, changes=changes)


def count_again(batches: Sequence[Batch]) -> None:
    """Count what batches hold after requests have left them; inside the same atomic."""
    for batch in batches:
        packing.recount(batch)
