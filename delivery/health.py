"""The health rows of destinations: read under their lock, written with the tries, told to people.

``due.record`` calls ``note`` in the transaction that logs the attempts; ``turns`` calls ``lock`` and
``save_claimed`` for what it gives out, and the single updates for what came of it; the admin and the API
show what ``of`` returns. ``pacing`` decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import F

from batching.models import Destination
from delivery import pacing
from delivery.models import DestinationHealth
from delivery.outcome import Outcome
from delivery.outgoing import ceiling_of
from delivery.pacing import Pace

logger = logging.getLogger(__name__)

_ALERT_EVERY = timedelta(hours=1)
_FIELDS = [field.name for field in fields(Pace)]
_CLAIM_FIELDS = ["tokens", "tokens_at", "senders"]


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What a record tells of one destination."""

    destination: Destination
    ends: Sequence[Outcome]
    """In the order in which they ended."""
    given_up: int
    """Results that no further try is due for."""
    stop: str = ""
    """Why nothing more is to be sent there, when a try said so."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """The figures of one destination, for people."""

    sentence: str
    """Why what is due waits and until when; empty when nothing holds it up."""
    is_open: bool
    """The circuit is open: nothing is sent for now."""
    open_until: datetime | None
    in_flight: int
    """Tries that senders were given to have under way now."""
    in_flight_limit: int
    """Tries that may be under way now, over all workers."""
    recent_tries: int
    """Of the last five minutes, as recent_failures."""
    recent_failures: int
    failures_in_row: int
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure: str
    latency_s: float | None


def pace_of(row: DestinationHealth) -> Pace:
    """Return the row's figures as a value."""
    values = {name: getattr(row, name) for name in _FIELDS}
    values["recent"] = tuple((a, b, c) for a, b, c in row.recent)
    return Pace(**values)


def set_pace(row: DestinationHealth, pace: Pace) -> None:
    """Set the row's figures; saves nothing."""
    for name in _FIELDS:
        setattr(row, name, getattr(pace, name))
    row.recent = [list(one) for one in pace.recent]


def lock(ids: Iterable[int], *, skip_locked: bool = False) -> dict[int, DestinationHealth]:
    """Return the rows of these destinations, made where missing, held until the transaction ends.

    Call inside atomic. ``skip_locked`` leaves out those that another worker holds right now.
    """
    rows = DestinationHealth.objects.select_for_update(skip_locked=skip_locked).order_by("pk")
    wanted = set(ids)
    locked = rows.in_bulk(wanted)
    missing = wanted - set(locked)
    if missing and (new := _make(missing)):
        locked |= rows.in_bulk(new)
    return locked


def _make(missing: set[int]) -> list[int]:
    """Make the rows that are not there, for destinations that are; return their ids."""
    there = set(DestinationHealth.objects.filter(pk__in=missing).values_list("pk", flat=True))
    places = Destination.objects.filter(pk__in=missing - there).values_list("pk", flat=True)
    new = list(places.order_by("pk"))
    DestinationHealth.objects.bulk_create(
        [DestinationHealth(destination_id=pk) for pk in new], ignore_conflicts=True
    )
    return new


def _save(rows: Sequence[DestinationHealth], names: Sequence[str]) -> None:
    """Write these fields of the rows: plain updates, for a bulk_update takes longer to say than to do."""
    by_name = {field.name: field for field in DestinationHealth._meta.concrete_fields}
    fields_ = [by_name[name] for name in names]
    sets = ", ".join(f'"{field.column}" = %s' for field in fields_)
    table = DestinationHealth._meta.db_table
    values = [
        [*(f.get_db_prep_save(getattr(row, f.attname), connection) for f in fields_), row.pk]
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {table} SET {sets} WHERE destination_id = %s", values)  # noqa: S608  # our names


def save_claimed(rows: Sequence[DestinationHealth]) -> None:
    """Write what a claim changes."""
    if rows:
        _save(rows, _CLAIM_FIELDS)


def give_tokens_back(destination_id: int, tokens: int) -> None:
    """Return what was set aside for a claim that found less; the bucket takes no more than it holds."""
    DestinationHealth.objects.filter(pk=destination_id).update(tokens=F("tokens") + tokens)


def note_window_use(row: DestinationHealth, *, is_used: bool) -> None:
    """Write whether the last claim would have taken more than the window let it, if that is the window still."""
    same = DestinationHealth.objects.filter(pk=row.pk, slowed_at=row.slowed_at)
    same.update(is_window_used=is_used)


def note(noted: Sequence[Noted], *, now: datetime) -> None:
    """Write how tries ended, disable what failed for days, tell a person. Call inside atomic, last."""
    rows = lock(n.destination.pk for n in noted)
    # One after the other by id, and the destination after its health: two who record can't wait for each other.
    told = sorted((n for n in noted if n.destination.pk in rows), key=lambda n: n.destination.pk)
    for one in told:
        row = rows[one.destination.pk]
        pace = pacing.after(pace_of(row), one.ends, ceiling=ceiling_of(one.destination), now=now)
        _tell_of_opening(one.destination, pace_of(row), pace)
        if one.stop:
            disable(one.destination.pk, one.stop, now)
        if pacing.should_be_disabled(pace, now):
            disable(one.destination.pk, _tired(pace), now)
            pace = pacing.started_anew(pace)
        set_pace(row, pace)
        if one.given_up and (row.alerted_at is None or now - row.alerted_at >= _ALERT_EVERY):
            row.alerted_at = now
            facts = {"destination": row.pk, "results": one.given_up, "why": pace.last_failure}
            logger.error("results given up", extra=facts)
    if told:
        changed = [rows[n.destination.pk] for n in told]
        _save(changed, [*_FIELDS, "alerted_at"])


def _tell_of_opening(destination: Destination, before: Pace, pace: Pace) -> None:
    if pace.openings > before.openings:
        facts: dict[str, Any] = {"destination": destination.pk, "until": str(pace.open_until)}
        logger.warning("circuit opened", extra={**facts, "why": pace.last_failure})
    elif before.openings and not pace.openings:
        logger.info("circuit closed", extra={"destination": destination.pk})


def _tired(pace: Pace) -> str:
    since = f"{pace.failing_since:%Y-%m-%d %H:%M}" if pace.failing_since else "long ago"
    return f"{pace.failures_in_row} failures and no success since {since}: {pace.last_failure}"


def disable(destination_id: int, reason: str, now: datetime) -> None:
    """Stop sending there until a person says otherwise; what is due is held."""
    disabled = Destination.objects.filter(pk=destination_id, disabled_at__isnull=True)
    if disabled.update(disabled_at=now, stop_reason=reason[:300]):
        logger.error("destination disabled", extra={"destination": destination_id, "why": reason})


def trust(destination_id: int) -> None:
    """Forget what speaks against a destination, for a person says that it is well. Call inside atomic."""
    for row in lock([destination_id]).values():
        set_pace(row, pacing.started_anew(pace_of(row)))
        row.save(update_fields=_FIELDS)


def of(destination: Destination, *, now: datetime) -> Health:
    """Return how a destination fares, as the last recorded try left it."""
    return of_many([destination], now=now)[destination.pk]


def of_many(destinations: Sequence[Destination], *, now: datetime) -> Mapping[int, Health]:
    """Return how destinations fare, by id, in one query."""
    rows = DestinationHealth.objects.in_bulk([d.pk for d in destinations])
    return {
        d.pk: _health(d, rows.get(d.pk) or DestinationHealth(destination_id=d.pk), now)
        for d in destinations
    }


def _health(destination: Destination, row: DestinationHealth, now: datetime) -> Health:
    pace = pace_of(row)
    ceiling = ceiling_of(destination)
    tries, failures = pacing.recent_tries(pace, now)
    return Health(
        sentence=_sentence(destination, pace, ceiling, now),
        is_open=pacing.is_open(pace, now),
        open_until=pace.open_until,
        in_flight=sum(slots for slots, end in row.senders.values() if end > now.timestamp()),
        in_flight_limit=pacing.limit(pace, ceiling, now),
        recent_tries=tries,
        recent_failures=failures,
        failures_in_row=pace.failures_in_row,
        failing_since=pace.failing_since,
        last_success_at=pace.last_success_at,
        last_failure_at=pace.last_failure_at,
        last_failure=pace.last_failure,
        latency_s=pace.latency_s,
    )


def _sentence(destination: Destination, pace: Pace, ceiling: int, now: datetime) -> str:
    if destination.disabled_at or destination.paused_at:
        held = "disabled" if destination.disabled_at else "paused"
        return f"{held}: {destination.stop_reason}" if destination.stop_reason else held
    why = f"after {pace.failures_in_row} failures: {pace.last_failure}"
    if pacing.is_open(pace, now):
        return f"circuit open until {pace.open_until:%H:%M:%S} UTC {why}"
    if pacing.is_probing(pace, now):
        return f"circuit half-open, one try decides, {why}"
    limit = pacing.limit(pace, ceiling, now)
    if limit < ceiling:
        return f"slowed to {limit} of {ceiling} at a time: {pace.last_failure}"
    return ""
