"""What stands in the transition log beside moves: a row's birth, and what was done to it where it stood.

Whoever makes rows or steers them calls this, inside the transaction of the deed. No state is changed here:
``lifecycle`` moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from django.db import DEFAULT_DB_ALIAS, connection, models
from django.utils import timezone
from django_fsm import FSMField
from django_fsm_log.models import StateLog

from batching.lifecycle import Actor, log_text
from batching.setmoves import LogRows, note


def note_many(
    rows: models.QuerySet[Any], name: str, *, reason: str, by: Actor, now: datetime
) -> int:
    """Log for each row that ``name`` was done to it, though its state stays; return how many. Inside atomic."""
    log = LogRows(
        rows.model,
        transition=name,
        target="",
        text=log_text(reason, by),
        user_id=by.user_id,
        at=now,
        using=rows.db,
    )
    return note(rows.values_list("id", "state"), log)


def log_first_state(
    table_sql: str,
    params: Iterable[Any],
    *,
    model: type[models.Model],
    by: Actor,
    reason: str,
    now: datetime,
    state: str = "",
) -> None:
    """Log the birth (nothing → first state) of every row that ``table_sql`` selects as ``(pk, state)``.

    ``state`` is where they were born, if not where others of their kind are. Call inside atomic, beside
    the insert.
    """
    log = LogRows(
        model,
        transition="accept",
        target=str(state or cast(FSMField, model._meta.get_field("state")).default),
        text=log_text(reason, by),
        user_id=by.user_id,
        at=now,
        using=DEFAULT_DB_ALIAS,
    )
    insert, log_params = log.insert_select(f"({table_sql})", born=True)
    with connection.cursor() as cursor:
        cursor.execute(insert, [*log_params, *params])


def log_deed(
    row: models.Model, name: str, *, reason: str, by: Actor, now: datetime | None = None
) -> None:
    """Log what was done to a row without moving it: in its history it stays in its state. Inside atomic.

    ``name`` is none of the transitions: ``paused``, ``moved``.
    """
    StateLog.objects.create(
        content_object=row,
        transition=name,
        source_state=row.state,  # type: ignore[attr-defined]  # batches and requests have one
        state=row.state,  # type: ignore[attr-defined]  # the same
        by_id=by.user_id,
        description=log_text(reason, by),
        timestamp=now or timezone.now(),
    )


__all__ = ["log_deed", "log_first_state", "note_many"]
