"""What a request's page shows around its fields: where it is and why, every attempt at the provider and every delivery.

Decides when the page asks for itself again, and when there is no more to come. `payloads` shows what was sent and
answered, on demand. Reads a fixed number of queries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from django.db.models import BinaryField
from django.db.models.functions import Substr
from django.utils import timezone

from batching.admin import payloads, stages
from batching.admin.history import Step, history_of
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Request
from batching.templatetags.badges import outcome_badge
from delivery import why
from delivery.models import Attempt

ATTEMPTS_SHOWN: Final = 50
_HEAD_BYTES: Final = 400
"""Of a provider's line: its own ids stand before the answer."""
_LINE_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,100})"')
_CALL_ID: Final = re.compile(rb'"request_id"\s*:\s*"([^"\\]{1,100})"')
_ENDS: Final = frozenset({RequestState.DELIVERED, RequestState.DELIVERY_FAILED, *BAD_ENDS})


@dataclass(frozen=True, kw_only=True)
class Sending:
    """One attempt at the provider."""

    number: int
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    batch_id: int | None = None
    status_code: int | None = None
    line_id: str = ""
    """The provider's name for the line, or for the answer in it."""
    call_id: str = ""
    """The provider's name for the call."""
    tokens: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None)
    """In, cached, out, reasoning."""
    outcome: str = ""
    """What became of it, when there is no answer to it."""


def is_final(row: Request) -> bool:
    """Return whether nothing more happens to a request by itself."""
    if row.due_at is not None:
        return False
    return row.state in _ENDS or (
        row.state == RequestState.PROCESSED and row.destination_id is None
    )


def surroundings(row: Request, *, may_read: bool) -> dict[str, Any]:
    """Return what the page's templates show; ``may_read``: what clients sent is offered too."""
    history = history_of(row)
    contents = payloads.contents_of(row) if may_read else []
    of_batch = history_of(row.batch).steps if row.batch is not None else []
    return {
        "row": row,
        "why": why.of_request(row, timezone.now()),
        "is_final": is_final(row),
        "stages": stages.of_request(row, history.steps, of_batch),
        "sendings": sendings(row, history.steps),
        "attempts": _deliveries(row),
        "history": history,
        "contents": contents,
        "can_compare": sum(content.name.startswith("answer-") for content in contents) > 1,
        "may_view_payload": may_read,
    }


def sendings(row: Request, steps: Sequence[Step]) -> list[Sending]:
    """Return every attempt at the provider, oldest first: from the log of moves, and from the answers."""
    found: dict[int, Sending] = {}
    number = 1
    for step in steps:
        known = found.get(number, Sending(number=number))
        if step.target == RequestState.PROCESSING:
            found[number] = replace(known, sent_at=step.at)
        elif step.transition == "requeue":
            found[number] = replace(known, outcome=step.why or "sent again")
            number += 1
    if (before := found.get(row.attempt - 1)) is not None:
        found[row.attempt - 1] = replace(before, batch_id=row.came_from_id)
    found.setdefault(row.attempt, Sending(number=row.attempt))
    found[row.attempt] = replace(found[row.attempt], batch_id=row.batch_id)
    for answer in _answers(row):
        known = found.get(answer.attempt, Sending(number=answer.attempt))
        found[answer.attempt] = _answered(known, answer)
    is_waiting = row.state == RequestState.PENDING and found[row.attempt].sent_at is None
    if is_waiting:
        found[row.attempt] = replace(found[row.attempt], outcome="not sent yet")
    return [found[number] for number in sorted(found)]


def _answers(row: Request) -> Any:
    head = Substr("line", 1, _HEAD_BYTES, output_field=BinaryField())
    return row.answers.defer("line").annotate(head=head).order_by("attempt")


def _answered(known: Sending, answer: Any) -> Sending:
    head = bytes(answer.head)
    return replace(
        known,
        answered_at=answer.received_at,
        batch_id=answer.batch_id or known.batch_id,
        status_code=answer.status_code,
        line_id=_first(_LINE_ID, head),
        call_id=_first(_CALL_ID, head),
        tokens=(
            answer.input_tokens,
            answer.cached_tokens,
            answer.output_tokens,
            answer.reasoning_tokens,
        ),
    )


def _first(pattern: re.Pattern[bytes], head: bytes) -> str:
    found = pattern.search(head)
    return found[1].decode("utf-8", "replace") if found else ""


def _deliveries(row: Request) -> list[tuple[Attempt, Any]]:
    newest = Attempt.objects.filter(request=row).select_related("destination").order_by("-pk")
    return [
        (attempt, outcome_badge(attempt.outcome, is_last=attempt.next_at is None))
        for attempt in reversed(newest[:ATTEMPTS_SHOWN])
    ]
