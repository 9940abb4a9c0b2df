"""How requests end, or go back to be sent again: sets of them, with their delivery made due.

Every end is told to the client, so an end and the due time of its delivery are one statement. When
it was settled is the database's own clock, at the statement: clients that pull read in that order.
Called by packing, submission, collection and steering; decides nothing itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now

from batching.lifecycle import CLOCK, Actor, move_many
from batching.models import Request
from batching.models.requests import NOT_GIVEN_UP

_COLLECTION = Actor(name="collection")

SQLITE_NOW = "REPLACE(STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW'), '.000000', '')"


class _ThisMoment(Now):
    """The database's clock, written as Django writes a time of its own.

    SQLite keeps times as text and compares them as such: one with three digits behind the second is never equal to
    Django's six, or none, and a client that reads on from such a time would miss all that ended in that moment.
    """

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Write six digits, or none when they are all 0."""
        return self.as_sql(compiler, connection, template=SQLITE_NOW, **context)


def due_if_wanted(now: datetime) -> Any:
    """Return the due time of a result: now when there is a destination, never when it is pulled."""
    return Case(
        When(destination__isnull=False, then=Value(now, output_field=models.DateTimeField())),
        default=Value(None, output_field=models.DateTimeField(null=True)),
    )


def answered(
    rows: models.QuerySet[Request],
    *,
    reason: str,
    now: datetime,
    by: Actor = _COLLECTION,
    **further: Any,
) -> int:
    """Settle requests whose good answer is stored; ``further`` fields are set as well."""
    changes = {
        **further,
        "settled_at": _ThisMoment(),
        "due_at": due_if_wanted(now),
        "error_code": "",
        "error_message": "",
    }
    return move_many(rows, "answered", reason=reason, by=by, now=now, changes=changes)


def end(
    rows: models.QuerySet[Request],
    how: str,
    *,
    code: str,
    message: str,
    now: datetime,
    by: Actor = CLOCK,
) -> int:
    """End requests badly: ``how`` is fail, expire or cancel; code and message reach the client."""
    changes = {
        "settled_at": _ThisMoment(),
        "due_at": due_if_wanted(now),
        "error_code": code,
        "error_message": message[:500],
        "tries": 0,
        "delivered_at": None,
        **NOT_GIVEN_UP,
    }
    return move_many(rows, how, reason=f"{code}: {message[:300]}", by=by, now=now, changes=changes)


def end_as_noted(rows: models.QuerySet[Request], *, reason: str, now: datetime) -> int:
    """Fail requests whose error code and message are on them already."""
    changes = {"settled_at": _ThisMoment(), "due_at": due_if_wanted(now)}
    return move_many(rows, "fail", reason=reason, by=_COLLECTION, now=now, changes=changes)


def requeue(
    rows: models.QuerySet[Request],
    *,
    reason: str,
    now: datetime,
    by: Actor = CLOCK,
    keep_batch: bool = False,
) -> int:
    """Send requests again as their next attempt: packed anew, or kept in their batch."""
    changes: dict[str, Any] = {
        "attempt": F("attempt") + 1,
        "settled_at": None,
        "due_at": None,
        "error_code": "",
        "error_message": "",
        "tries": 0,
        "delivered_at": None,
        **NOT_GIVEN_UP,
    }
    if not keep_batch:
        changes |= {"came_from": F("batch"), "batch": None, "seal_by": now}
    return move_many(rows, "requeue", reason=reason, by=by, now=now, changes=changes)
