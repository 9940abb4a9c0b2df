"""The due queue: which results are to be sent now, claimed under a lease, and what came of each.

Everything here is a short transaction over sets; nothing here talks to the outside. ``dispatch``
calls ``claim``, ``load`` and ``record``. A claim moves ``due_at`` to the end of its lease and raises
the fence, so a sender that dies gives its results back by itself, and one that comes back too late
changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.expressions import RawSQL

from batching.lifecycle import BAD_ENDS, Actor, RequestState, move_many
from batching.models import Destination, Request
from batching.models.requests import NOT_GIVEN_UP
from batching.staging import INTEGER, REAL, TEXT, TIME, TRUTH, listed, sql_value, stage
from delivery import health
from delivery.health import Noted
from delivery.intake_messages import printable
from delivery.models import Attempt
from delivery.outcome import Outcome
from delivery.outgoing import schedule_of
from delivery.parcels import Claim, Parcel, groups, load, message_id, result_url
from delivery.retry import Next, Verdict, verdict

_SENDER = Actor(name="delivery")
LEASE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A try and how it ended."""

    parcel: Parcel
    outcome: Outcome


_DUE_PLACES = """
WITH RECURSIVE place (id) AS (
    SELECT min(destination_id) FROM {request} WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(destination_id) FROM {request} WHERE due_at IS NOT NULL AND destination_id > place.id)
    FROM place WHERE place.id IS NOT NULL
)
SELECT id FROM place WHERE id IS NOT NULL AND (
    SELECT min(due_at) FROM {request} WHERE destination_id = place.id AND due_at IS NOT NULL
) <= %s
"""
"""Steps from one destination to the next in the index, whatever lies between: neither database skips by itself."""


def ready_destinations(now: datetime) -> list[Destination]:
    """Return the destinations with something due that may be sent to: not held, circuit not open."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE_PLACES.format(request=Request._meta.db_table), [sql_value(now)])
        ids = [pk for (pk,) in cursor.fetchall()]
    is_broken = Q(health__open_until__gt=now)
    return list(Destination.objects.open().filter(pk__in=ids).exclude(is_broken))


def claim(room: Mapping[int, int], *, now: datetime) -> list[Claim]:
    """Claim due results: for each destination id no more than ``room`` says, longest due first."""
    with transaction.atomic():
        rows = [row for place, most in room.items() for row in _due_at(place, most, now)]
        lease = {"due_at": now + LEASE, "fence": F("fence") + 1}
        fresh = [row[0] for row in rows if row[2] == RequestState.PROCESSED]
        others = [row[0] for row in rows if row[2] != RequestState.PROCESSED]
        if fresh:
            move_many(
                _those(fresh), "deliver", reason="sending", by=_SENDER, now=now, changes=lease
            )
        if others:
            _those(others).update(**lease)
    return [
        Claim(request_id=pk, destination_id=place, fence=fence + 1, number=tries + 1)
        for pk, place, _, fence, tries in rows
    ]


def _those(request_ids: Sequence[int]) -> QuerySet[Request]:
    select, ids = listed(request_ids)
    return Request.objects.filter(pk__in=RawSQL(select, [ids]))  # noqa: S611  # ours, ids are a parameter


def _due_at(destination_id: int, most: int, now: datetime) -> list[tuple[int, int, str, int, int]]:
    due = Request.objects.select_for_update(skip_locked=True, of=("self",)).due(now)
    columns = ("pk", "destination_id", "state", "fence", "tries")
    return list(due.filter(destination=destination_id).values_list(*columns)[:most])


def give_back(claims: Sequence[Claim], *, reason: str, now: datetime) -> None:
    """Make claimed results that were not sent due again at once; it costs them no try."""
    for fence in {c.fence for c in claims}:
        ids = [c.request_id for c in claims if c.fence == fence]
        ours = _those(ids).filter(fence=fence, due_at__isnull=False)
        again = {"due_at": now}
        move_many(ours, "try_later", reason=reason, by=_SENDER, now=now, changes=again)
        ours.filter(state__in=BAD_ENDS).update(**again)


def renew(request_ids: Sequence[int], *, now: datetime) -> None:
    """Move the end of the lease of claimed results ahead.

    What is due later than a lease from now is no claim: someone took it over, and its next try waits.
    """
    _those(request_ids).filter(due_at__lte=now + LEASE).update(due_at=now + LEASE)


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
    "error_class": TEXT,
    "body_sha256": TEXT,
    "body_size": INTEGER,
    "started_at": TIME,
    "duration_s": REAL,
    "ended_at": TIME,
}
_COPIED = [name for name in _STAGED if name not in ("fence", "next")]


def record(sent: Sequence[Sent], *, now: datetime) -> None:
    """Log every try and write what follows from it and how its destination fares, in one transaction."""
    places = _places(sent)
    schedules = {pk: schedule_of(place) for pk, place in places.items()}
    sent = [s for s in sent if s.parcel.claim.destination_id in places]
    verdicts = [
        verdict(
            s.outcome,
            s.parcel.claim.number,
            now=now,
            schedule=schedules[s.parcel.claim.destination_id],
        )
        for s in sent
    ]
    with transaction.atomic():
        stage(
            "delivery_outcome",
            _STAGED,
            (_row(s, v, now) for s, v in zip(sent, verdicts, strict=True)),
            key="request_id",
        )
        _log_attempts()
        _move(Counter(decided.next for decided in verdicts), now)
        health.note(_noted(places, sent, verdicts), now=now)


def _places(sent: Sequence[Sent]) -> dict[int, Destination]:
    ids = {s.parcel.claim.destination_id for s in sent}
    private = ("secret", "previous_secret", "headers")  # not needed here, and costly to read
    return Destination.objects.defer(*private).in_bulk(list(ids))


def _noted(
    places: Mapping[int, Destination], sent: Sequence[Sent], verdicts: Sequence[Verdict]
) -> list[Noted]:
    ends: dict[int, list[Outcome]] = {pk: [] for pk in places}
    given_up, stops = Counter[int](), dict[int, str]()
    for one, decided in zip(sent, verdicts, strict=True):
        pk = one.parcel.claim.destination_id
        ends[pk].append(one.outcome)
        given_up[pk] += decided.next is Next.DEAD
        if decided.disable_destination:
            stops.setdefault(pk, decided.reason)
    return [
        Noted(destination=place, ends=ends[pk], given_up=given_up[pk], stop=stops.get(pk, ""))
        for pk, place in places.items()
    ]


def _row(sent: Sent, decided: Verdict, now: datetime) -> tuple[Any, ...]:
    claim_, outcome, body = sent.parcel.claim, sent.outcome, sent.parcel.message.body
    took = timedelta(seconds=outcome.duration_s)
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
        printable(outcome.detail or decided.reason)[:500],
        printable(outcome.answer.decode(errors="replace")),
        outcome.address[:100],
        outcome.error[:100],
        hashlib.sha256(body).hexdigest(),
        len(body),
        outcome.started_at,
        outcome.duration_s,
        outcome.started_at + took if outcome.started_at else now,
    )


def _log_attempts() -> None:
    """Log the tries; one whose request was deleted meanwhile has nowhere to be logged."""
    columns = ", ".join(_COPIED)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Attempt._meta.db_table} ({columns})"  # noqa: S608  # our names
            f" SELECT {columns} FROM delivery_outcome WHERE request_id IN"
            f" (SELECT id FROM {Request._meta.db_table})"
        )


def _still_ours(next_: Next) -> QuerySet[Request]:
    """Return the requests with this verdict whose claim nobody else took over."""
    ids = RawSQL(  # noqa: S611  # our names, the verdict is a parameter
        f"SELECT s.request_id FROM delivery_outcome s JOIN {Request._meta.db_table} held"  # noqa: S608
        " ON held.id = s.request_id AND held.fence = s.fence WHERE s.next = %s",
        [str(next_)],
    )
    return Request.objects.filter(pk__in=ids)


_CAUSE = (
    "SELECT outcome || CASE WHEN status IS NULL THEN '' ELSE ':' || status END"  # noqa: S608  # our names
    f" FROM delivery_outcome WHERE request_id = {Request._meta.db_table}.id"
)
"""How the last try of a request ended, as ``dead_cause`` says it."""


def _move(counts: Mapping[Next, int], now: datetime) -> None:
    """Move what was staged by its verdicts; of a kind that there is none of, nothing is asked."""
    ended: dict[str, Any]
    if delivered := counts[Next.DELIVERED]:
        ended = {"due_at": None, "delivered_at": now, **NOT_GIVEN_UP, "tries": F("tries") + 1}
        _move_ended(Next.DELIVERED, "delivered", "delivered", ended, delivered, now)
    if dead := counts[Next.DEAD]:
        cause = RawSQL(f"({_CAUSE})", [])  # noqa: S611  # our names
        ended = {"due_at": None, "dead_at": now, "dead_cause": cause, "tries": F("tries") + 1}
        _move_ended(Next.DEAD, "delivery_failed", "delivery given up", ended, dead, now)
    if counts[Next.RETRY]:
        _move_retried(now)


def _move_ended(  # one verdict, one arrow
    next_: Next, name: str, reason: str, changes: Mapping[str, Any], staged: int, now: datetime
) -> None:
    rows = _still_ours(next_)
    moved = move_many(rows, name, reason=reason, by=_SENDER, now=now, changes=changes)
    if moved < staged:  # the others are not ours any more, or bad ends, which are told and stay
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


__all__ = [
    "LEASE",
    "Claim",
    "Parcel",
    "Sent",
    "claim",
    "give_back",
    "groups",
    "load",
    "message_id",
    "ready_destinations",
    "record",
    "renew",
    "result_url",
]
