"""A batch that was refused as a whole goes again in parts, so that one bad line stays one bad line.

Lines that the provider names fail, and the rest goes as a new batch. Where it names none the batch is halved,
until the bad lines stand alone. A refused batch ran nothing and cost nothing: no request loses an attempt, and
one that has ended is not touched. Each round is in the history of the batch, of its parts and of the requests,
and in the audit log. How many rounds one batch and all its parts may take together is a setting. Called by
``submission``, which fails what can't be taken apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import models, transaction
from django.db.models import F

from batching import audit, endings, packing
from batching.claims import hold, pause
from batching.history import log_first_state
from batching.lifecycle import Actor, BatchState, RequestState, move, move_many
from batching.models import Batch, Request
from batching.overrides import effective
from batching.providers.base import RemoteError

logger = logging.getLogger(__name__)

# Codes as seen at OpenAI, Azure and DashScope, 2026-09. Endpoint and model are the lane's: no part would do better.
_OF_THE_WHOLE = frozenset(
    {
        *("model_not_found", "invalid_url", "url_mismatch", "url_not_found", "empty_file"),
        *("billing_hard_limit_reached", "insufficient_quota", "invalid_api_key"),
    }
)
_MAY_PASS = frozenset({"internal_error", "server_error", "request_timeout"})
_NAMED_AT_ONCE = 500
_PLACE = (
    *("priority", "is_priority_set", "rank", "overtaken", "promoted_at", "paused_at"),
    "pause_reason",
)
"""Parts stand in their lane where the whole stood."""


class Whole(Exception):
    """The batch can't be taken apart, or its parts would fare no better; the text says why, or is empty."""


def take_apart(
    batch: Batch, errors: Sequence[RemoteError], reason: str, now: datetime, *, by: Actor
) -> None:
    """End a batch that was refused for ``reason``; send those of its requests again that may be good.

    ``errors`` are the provider's. Raises Whole, and has changed nothing then.
    """
    if any(error.code in _OF_THE_WHOLE for error in errors):
        raise Whole
    may_pass = any(error.param == "file_id" or error.code in _MAY_PASS for error in errors)
    with transaction.atomic():
        hold(batch)
        rows = Request.objects.filter(batch=batch).undecided()
        count = rows.count()
        named = _named(batch, rows, count, errors)
        if count < 2 and not named and not may_pass:
            raise Whole
        number = _next_round(batch)
        split = _Round(batch=batch, number=number, reason=reason[:300], now=now, by=by)
        if named:
            done = split.fail_named(rows, named)
        elif may_pass:
            done = f"sent again as {split.part(rows, due=now + pause(number))}"
        else:
            done = split.halve(rows, count)
        text = f"{split.text}: {done}"
        move(batch, "fail", reason=text, by=by, now=now, last_error=text, next_attempt_at=None)
        audit.record("batch.split", by=by, row=batch, reason=text)
    logger.warning("batch taken apart", extra={"batch": batch.key, "round": number})


def _named(
    batch: Batch, rows: models.QuerySet[Request], count: int, errors: Sequence[RemoteError]
) -> Mapping[int, RemoteError]:
    """Return the requests whose lines the provider named, by their number, with what it said of each.

    The file's lines are the batch's requests in the order of their numbers; if some are gone, none is found.
    """
    lines = {error.line: error for error in errors[:_NAMED_AT_ONCE] if error.line}
    if not lines or count != batch.request_count:
        return {}
    numbered = rows.order_by("pk").values_list("pk", flat=True).iterator(10_000)
    return {pk: lines[line] for line, pk in enumerate(numbered, 1) if line in lines}


def _next_round(batch: Batch) -> int:
    """Count one more round for the first batch that was refused. Raises Whole when the last is over."""
    origin = Batch.objects.filter(pk=batch.origin_id or batch.pk)
    most = effective("BATCHER_MAX_SPLITS")
    if not origin.filter(splits__lt=most).update(splits=F("splits") + 1):
        raise Whole(f"; taken apart {most} times with the other parts, which is the limit")
    return origin.values_list("splits", flat=True).get()


@dataclass(frozen=True, kw_only=True)
class _Round:
    """One refusal, and the parts that are made of its batch. Call inside atomic."""

    batch: Batch
    number: int
    reason: str
    now: datetime
    by: Actor

    @property
    def text(self) -> str:
        most = effective("BATCHER_MAX_SPLITS")
        return f"{self.reason}; round {self.number} of {most}"

    def fail_named(self, rows: models.QuerySet[Request], named: Mapping[int, RemoteError]) -> str:
        """Fail the requests that the provider named and send the rest again; return what was done."""
        for pk, error in named.items():
            code, said = error.code or "line_refused", error.message or "the provider refused it"
            bad = rows.filter(pk=pk)
            endings.end(bad, "fail", code=code[:100], message=said, now=self.now, by=self.by)
        lines = ", ".join(str(error.line) for error in list(named.values())[:5])
        failed = f"failed {len(named):,} (line {lines})"
        if not rows.exists():
            return failed
        return f"{failed} and sent the rest again as {self.part(rows)}"

    def halve(self, rows: models.QuerySet[Request], count: int) -> str:
        """Send the requests again in two halves; return what was done."""
        middle = rows.order_by("pk").values_list("pk", flat=True)[count // 2]
        first = self.part(rows.filter(pk__lt=middle))
        second = self.part(rows.filter(pk__gte=middle))
        return f"no line was named, sent again in halves: {first} and {second}"

    def part(self, rows: models.QuerySet[Request], *, due: datetime | None = None) -> str:
        """Give these requests to a new batch, sealed from its birth; return what people call it."""
        reason = f"part of {self.batch}: {self.text}"
        made = Batch.objects.create(
            lane=self.batch.lane, state=BatchState.UPLOADING, created_at=self.now,
            origin_id=self.batch.origin_id or self.batch.pk, next_attempt_at=due or self.now,
            last_error=reason, **{field: getattr(self.batch, field) for field in _PLACE},
        )  # fmt: skip
        born = f"SELECT id, state FROM {Batch._meta.db_table} WHERE id = %s"  # noqa: S608
        log_first_state(born, [made.pk], model=Batch, by=self.by, reason=reason, now=self.now,
                        state=BatchState.UPLOADING)  # fmt: skip
        move_many(rows.filter(state=RequestState.PROCESSING), "requeue", reason=f"not run: {reason}",
                  by=self.by, now=self.now, changes={"batch": made})  # fmt: skip
        rows.filter(state=RequestState.PENDING).update(batch=made)
        packing.recount(made)
        return f"{made} ({made.request_count:,} requests)"


__all__ = ["Whole", "take_apart"]
