"""Many rows on their way into sets: a temporary table that one SQL statement then reads.

COPY on PostgreSQL, executemany on SQLite: the one place where bulk loading knows its database. Used
by intake (lines), collection (answers) and dispatch (attempts).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connections

TEXT, BYTES, INTEGER, TIME, TRUTH, REAL = "text", "bytes", "integer", "time", "truth", "real"
"""Column types of a staging table."""

_SQL_TYPES = {
    "postgresql": {
        TEXT: "text",
        BYTES: "bytea",
        INTEGER: "bigint",
        TIME: "timestamptz",
        TRUTH: "boolean",
        REAL: "double precision",
    },
    "sqlite": {
        TEXT: "text",
        BYTES: "blob",
        INTEGER: "integer",
        TIME: "datetime",
        TRUTH: "bool",
        REAL: "real",
    },
}


def stage(
    name: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    *,
    key: str,
    using: str = "default",
) -> None:
    """Fill the temporary table ``name`` with ``rows``, in place of what it held.

    ``key`` is the column by which it will be joined. It has an index: right after a bulk load the
    planner's figures for the other side are wrong by orders of magnitude, and it scans.

    Call inside atomic, with rows that ask the database nothing while they are made (a COPY is under
    way on the same connection). The table lives as long as the connection, its rows no longer than the
    transaction or the next filling. Names and types are ours, never a client's.
    """
    connection = connections[using]
    types = _SQL_TYPES[connection.vendor]
    declared = ", ".join(f"{column} {types[kind]}" for column, kind in columns.items())
    is_postgres = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        lifetime = " ON COMMIT DELETE ROWS" if is_postgres else ""
        cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({declared}){lifetime}")
        schema = "" if is_postgres else "temp."
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {schema}{name}_{key} ON {name} ({key})")
        cursor.execute(f"DELETE FROM {name}")  # noqa: S608  # our own name
        if is_postgres:
            _copy(cursor, f"COPY {name} ({', '.join(columns)}) FROM STDIN", rows)
            cursor.execute(f"ANALYZE {name}")  # else the planner takes it for a table of any size
        else:
            marks = ", ".join(["%s"] * len(columns))
            insert = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            times = [place for place, kind in enumerate(columns.values()) if kind == TIME]
            cursor.executemany(insert, [_with_text_times(row, times) for row in rows])


def _copy(cursor: Any, sql: str, rows: Iterable[Sequence[Any]]) -> None:
    with cursor.copy(sql) as copy:
        for row in rows:
            copy.write_row(row)


def _with_text_times(row: Sequence[Any], times: Sequence[int]) -> list[Any]:
    """Return the row with its times as SQLite keeps them: naive UTC text."""
    values = list(row)
    for place in times:
        at = values[place]
        if at is not None:
            in_utc = at if at.tzinfo is UTC else at.astimezone(UTC)
            values[place] = str(in_utc).removesuffix("+00:00")
    return values


def listed(ids: Sequence[int], *, using: str = "default") -> tuple[str, Any]:
    """Return a SELECT of these ids, for ``IN``, and its only parameter.

    One parameter, however many there are: nothing to build and nothing to parse for each of them.
    """
    if connections[using].vendor == "postgresql":
        return "SELECT unnest(%s::bigint[])", list(ids)
    return "SELECT value FROM json_each(%s)", json.dumps(list(ids))


def sql_value(value: Any, *, using: str = "default") -> Any:
    """Return ``value`` as a parameter for raw SQL: SQLite keeps times as UTC text."""
    if isinstance(value, datetime):
        return connections[using].ops.adapt_datetimefield_value(value)
    return value
