"""The SQL of moving many rows at once: one guarded update and one insert into the transition log.

``lifecycle`` decides which rows may move and where to; this file knows how each database does it in a
set, so that the log has exactly the rows that moved. Nobody else calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models.expressions import RawSQL
from django.db.models.sql import Query
from django.db.models.sql.subqueries import UpdateQuery
from django_fsm_log.models import StateLog


class LogRows:
    """The django-fsm-log rows of one move of many."""

    def __init__(
        self,
        model: type[models.Model],
        *,
        transition: str,
        target: str,
        text: str,
        user_id: int | None,
        at: datetime,
        using: str,
    ) -> None:
        self.values = [
            connections[using].ops.adapt_datetimefield_value(at),
            user_id,
            target,
            transition,
            ContentType.objects.get_for_model(model).pk,
            text,
        ]

    def insert_select(
        self, source: str, *, born: bool = False, stays: bool = False
    ) -> tuple[str, list[Any]]:
        """Return SQL that logs each row of ``source`` (columns id, state), and its leading params."""
        from_state = "NULL" if born else "moved.state"
        at, user_id, target, name, content_type, text = self.values
        if stays:
            sql = (
                f"INSERT INTO {StateLog._meta.db_table} (timestamp, by_id, source_state, state,"  # noqa: S608  # our names
                " transition, content_type_id, object_id, description)"
                f" SELECT %s, %s, moved.state, moved.state, %s, %s, moved.id, %s FROM {source} AS moved"
            )
            return sql, [at, user_id, name, content_type, text]
        sql = (
            f"INSERT INTO {StateLog._meta.db_table} (timestamp, by_id, source_state, state,"  # noqa: S608  # our names
            " transition, content_type_id, object_id, description)"
            f" SELECT %s, %s, {from_state}, %s, %s, %s, moved.id, %s FROM {source} AS moved"
        )
        return sql, [at, user_id, target, name, content_type, text]


def move_and_log(
    rows: Any, values: Mapping[str, Any], log: LogRows, *, sources: Collection[str]
) -> int:
    """Set ``values`` on the rows of a query of ``(id, state)``, log each, and return how many.

    Every row of the query stands at one of ``sources``: it filters by them. Call inside atomic.
    """
    if connections[rows.db].vendor != "postgresql":
        return _under_write_lock(rows, values, log)
    if len(sources) == 1 and _is_of_one_table(rows.query):
        (source,) = sources
        return _from_one_state(rows, values, log, source)
    return _in_one_statement(rows, values, log)


def note(rows: Any, log: LogRows) -> int:
    """Log each row of a query of ``(id, state)`` as one that stays in its state; return how many. Inside atomic."""
    try:
        select, params = rows.query.sql_with_params()
    except EmptyResultSet:  # no ids: Django knows the answer without asking
        return 0
    insert, log_params = log.insert_select(f"({select})", stays=True)
    with connections[rows.db].cursor() as cursor:
        cursor.execute(insert, [*log_params, *params])
        return int(cursor.rowcount)


def _is_of_one_table(query: Query) -> bool:
    """Tell whether an update can have the query's own conditions, and so asks them of the row it locked."""
    if query.is_sliced or query.distinct or query.combinator or query.annotations:
        return False
    probe = query.chain()
    probe.get_initial_alias()
    return probe.count_active_tables() == 1


def _from_one_state(rows: Any, values: Mapping[str, Any], log: LogRows, source: str) -> int:
    """PostgreSQL, from one state: what to log is known without having looked, so the update needs no lock before it."""
    query = rows.query.chain(UpdateQuery)
    query.clear_ordering(force=True)
    update, update_params = _compiled(query, values, rows.db)
    insert, log_params = log.insert_select("old")
    sql = f"WITH old (id, state) AS ({update} RETURNING id, %s::varchar) {insert}"
    with connections[rows.db].cursor() as cursor:
        cursor.execute(sql, [*update_params, source, *log_params])
        return int(cursor.rowcount)


def _in_one_statement(rows: Any, values: Mapping[str, Any], log: LogRows) -> int:
    """PostgreSQL: lock, update and log in one statement; a row that moved meanwhile is skipped."""
    select, select_params = rows.select_for_update(of=("self",)).query.sql_with_params()
    update, update_params = _update_sql(rows, RawSQL("SELECT id FROM old", ()), values)
    insert, log_params = log.insert_select("old")
    sql = f"WITH old (id, state) AS MATERIALIZED ({select}), changed AS ({update}) {insert}"
    with connections[rows.db].cursor() as cursor:
        cursor.execute(sql, [*select_params, *update_params, *log_params])
        return int(cursor.rowcount)


def _under_write_lock(rows: Any, values: Mapping[str, Any], log: LogRows) -> int:
    """SQLite: the transaction holds the only write lock, so what is logged last are the rows to move."""
    select, select_params = rows.query.sql_with_params()
    insert, log_params = log.insert_select(f"({select})")
    table = StateLog._meta.db_table
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"SELECT coalesce(max(id), 0) FROM {table}")  # noqa: S608  # our names
        (last,) = cursor.fetchone()
        cursor.execute(insert, [*log_params, *select_params])
        if cursor.rowcount == 0:
            return 0
        ids = RawSQL(f"SELECT object_id FROM {table} WHERE id > %s", [last])  # noqa: S608, S611
        update, update_params = _update_sql(rows, ids, values)
        cursor.execute(update, update_params)
        return int(cursor.rowcount)


def _update_sql(rows: Any, ids: RawSQL, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return ``UPDATE … WHERE pk IN (ids)`` as Django itself would write it."""
    query = rows.model._base_manager.using(rows.db).filter(pk__in=ids).query.chain(UpdateQuery)
    return _compiled(query, values, rows.db)


def _compiled(query: UpdateQuery, values: Mapping[str, Any], using: str) -> tuple[str, list[Any]]:
    query.add_update_values(dict(values))
    sql, params = query.get_compiler(using).as_sql()
    return sql, list(params)
