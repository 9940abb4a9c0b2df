"""The due queue: which results are to be sent now, claimed under a lease, and what came of each.

Everything here is a short transaction over sets; nothing here talks to the outside. ``dispatch``
calls ``claim``, ``load`` and ``record``. A claim moves ``due_at`` to the end of its lease and raises
the fence, so a sender that dies gives its results back by itself, and one that comes back too late
changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import Length

from batching.lifecycle import BAD_ENDS, Actor, RequestState, move_many
from batching.models import Answer, Destination, Request, RequestBody
from batching.staging import INTEGER, REAL, TEXT, TIME, TRUTH, sql_value, stage
from delivery.envelope import render
from delivery.models import Attempt
from delivery.outcome import Message, Outcome
from delivery.retry import Next, Verdict, verdict

logger = logging.getLogger(__name__)

_SENDER = Actor(name="delivery")
LEASE = timedelta(minutes=1)
_GROUP_ROWS, _GROUP_BYTES = 250, 8 * 1024 * 1024
_HEADER_SAFE = "!#$&'()*+,/:;=?@[]-._~ "


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One result that is ours to send until its lease ends."""

    request_id: int
    destination_id: int
    fence: int
    number: int
    """Which try this is, from 1."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A claimed result with its bytes, ready to be sent."""

    claim: Claim
    message: Message
    is_replay: bool


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A try and how it ended."""

    parcel: Parcel
    outcome: Outcome


def open_destinations(now: datetime) -> list[Destination]:
    """Return the destinations with something due that may be sent to."""
    due = Request.objects.filter(destination=OuterRef("pk"), due_at__lte=now)
    return list(Destination.objects.open().filter(Exists(due)))


def claim(room: Mapping[int, int], *, now: datetime) -> list[Claim]:
    """Claim due results: for each destination id no more than ``room`` says, longest due first."""
    claims: list[Claim] = []
    with transaction.atomic():
        for destination_id, most in room.items():
            claims += _claim_of(destination_id, most, now)
    return claims


def _claim_of(destination_id: int, most: int, now: datetime) -> list[Claim]:
    due = Request.objects.select_for_update(skip_locked=True, of=("self",)).due(now)
    rows = list(
        due.filter(destination=destination_id).values_list("pk", "state", "fence", "tries")[:most]
    )
    if not rows:
        return []
    lease = {"due_at": now + LEASE, "fence": F("fence") + 1}
    fresh = [pk for pk, state, _, _ in rows if state == RequestState.PROCESSED]
    others = [pk for pk, state, _, _ in rows if state != RequestState.PROCESSED]
    if fresh:
        ids = Request.objects.filter(pk__in=fresh)
        move_many(ids, "deliver", reason="sending", by=_SENDER, now=now, changes=lease)
    if others:
        Request.objects.filter(pk__in=others).update(**lease)
    return [
        Claim(request_id=pk, destination_id=destination_id, fence=fence + 1, number=tries + 1)
        for pk, _, fence, tries in rows
    ]


def renew(request_ids: Sequence[int], *, now: datetime) -> None:
    """Move the end of the lease of claimed results ahead.

    What is due later than a lease from now is no claim: someone took it over, and its next try waits.
    """
    Request.objects.filter(pk__in=request_ids, due_at__lte=now + LEASE).update(due_at=now + LEASE)


def groups(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Cut claims into groups that are small enough, in rows and in bytes, to be held in memory."""
    answers = _present_answers([c.request_id for c in claims])
    sizes = dict(answers.annotate(size=Length("line")).values_list("request_id", "size"))
    group: list[Claim] = []
    held = 0
    for one in claims:
        group.append(one)
        held += sizes.get(one.request_id) or 0
        if len(group) >= _GROUP_ROWS or held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def load(claims: Sequence[Claim]) -> list[Parcel]:
    """Read the claimed results and make the messages to be sent."""
    ids = [c.request_id for c in claims]
    requests = Request.objects.in_bulk(ids)
    answers = {a.request_id: a for a in _present_answers(ids)}
    metadata = dict(RequestBody.objects.filter(pk__in=ids).values_list("request_id", "metadata"))
    return [
        Parcel(
            claim=one,
            message=_message(
                requests[one.request_id],
                answers.get(one.request_id),
                bytes(metadata.get(one.request_id, b"{}")),
            ),
            is_replay=requests[one.request_id].replays > 0,
        )
        for one in claims
        if one.request_id in requests
    ]


def _present_answers(ids: Sequence[int]) -> QuerySet[Answer]:
    return Answer.objects.filter(request_id__in=ids, attempt=F("request__attempt"))


def message_id(request: Request) -> str:
    """Return the id of a result: the same over all tries and replays, another for another attempt."""
    return f"{request.key}-{request.attempt}"


def _message(request: Request, answer: Answer | None, metadata: bytes) -> Message:
    headers = [
        ("x-batcher-request-id", request.key),
        ("x-batcher-custom-id", quote(request.custom_id, safe=_HEADER_SAFE)),
    ]
    if request.replays:
        headers.append(("x-replay", "1"))
    body = render(request, answer, metadata)
    return Message(id=message_id(request), body=body, headers=tuple(headers))


_STAGED = {
    "request_id": INTEGER,
    "fence": INTEGER,
    "next": TEXT,
    "next_at": TIME,
    "destination_id": INTEGER,
    "number": INTEGER,
    "is_replay": TRUTH,
    "outcome": TEXT,
    "status": INTEGER,
    "detail": TEXT,
    "answer": TEXT,
    "address": TEXT,
    "duration_s": REAL,
}
_COPIED = [name for name in _STAGED if name not in ("fence", "next")]


def record(sent: Sequence[Sent], *, now: datetime) -> None:
    """Log every try and write what follows from it, in one transaction."""
    verdicts = [verdict(s.outcome, s.parcel.claim.number, now=now) for s in sent]
    with transaction.atomic():
        stage("delivery_outcome", _STAGED, map(_row, sent, verdicts), key="request_id")
        _log_attempts(now)
        _move_delivered(now)
        _move_dead(now)
        _move_retried(now)
        for one, decided in zip(sent, verdicts, strict=True):
            if decided.disable_destination:
                _disable(one.parcel.claim.destination_id, decided.reason, now)


def _row(sent: Sent, decided: Verdict) -> tuple[Any, ...]:
    claim_, outcome = sent.parcel.claim, sent.outcome
    return (
        claim_.request_id,
        claim_.fence,
        str(decided.next),
        decided.retry_at,
        claim_.destination_id,
        claim_.number,
        sent.parcel.is_replay,
        str(outcome.code),
        outcome.status,
        _plain(outcome.detail or decided.reason)[:500],
        _plain(outcome.answer.decode(errors="replace")),
        outcome.address[:100],
        outcome.duration_s,
    )


def _plain(text: str) -> str:
    """Return a receiver's words as every database takes them: without NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _log_attempts(now: datetime) -> None:
    """Log the tries; one whose request was deleted meanwhile has nowhere to be logged."""
    columns = ", ".join(_COPIED)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Attempt._meta.db_table} ({columns}, ended_at)"  # noqa: S608  # our names
            f" SELECT {columns}, %s FROM delivery_outcome WHERE request_id IN"
            f" (SELECT id FROM {Request._meta.db_table})",
            [sql_value(now)],
        )


def _still_ours(next_: Next) -> QuerySet[Request]:
    """Return the requests with this verdict whose claim nobody else took over."""
    ids = RawSQL(  # noqa: S611  # our names, the verdict is a parameter
        f"SELECT s.request_id FROM delivery_outcome s JOIN {Request._meta.db_table} held"  # noqa: S608
        " ON held.id = s.request_id AND held.fence = s.fence WHERE s.next = %s",
        [str(next_)],
    )
    return Request.objects.filter(pk__in=ids)


def _move_delivered(now: datetime) -> None:
    changes = {"due_at": None, "delivered_at": now, "dead_at": None, "tries": F("tries") + 1}
    rows = _still_ours(Next.DELIVERED)
    move_many(rows, "delivered", reason="delivered", by=_SENDER, now=now, changes=changes)
    _still_ours(Next.DELIVERED).filter(state__in=BAD_ENDS, due_at__isnull=False).update(**changes)


def _move_dead(now: datetime) -> None:
    changes = {"due_at": None, "dead_at": now, "tries": F("tries") + 1}
    rows = _still_ours(Next.DEAD)
    reason = "delivery given up"
    move_many(rows, "delivery_failed", reason=reason, by=_SENDER, now=now, changes=changes)
    rows.filter(state__in=BAD_ENDS, due_at__isnull=False).update(**changes)


def _move_retried(now: datetime) -> None:
    request = Request._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {request} SET due_at = s.next_at, tries = tries + 1"  # noqa: S608  # our names
            f" FROM delivery_outcome s WHERE s.request_id = {request}.id"
            f" AND s.fence = {request}.fence AND s.next = %s AND {request}.due_at IS NOT NULL",
            [str(Next.RETRY)],
        )
        if not cursor.rowcount:
            return
    rows = _still_ours(Next.RETRY)
    move_many(rows, "try_later", reason="this try failed", by=_SENDER, now=now)


def _disable(destination_id: int, reason: str, now: datetime) -> None:
    disabled = Destination.objects.filter(pk=destination_id, disabled_at__isnull=True)
    if disabled.update(disabled_at=now, stop_reason=reason[:300]):
        logger.error("destination disabled", extra={"destination": destination_id, "why": reason})


__all__ = [
    "LEASE",
    "Claim",
    "Parcel",
    "Sent",
    "claim",
    "groups",
    "load",
    "message_id",
    "open_destinations",
    "record",
    "renew",
]
