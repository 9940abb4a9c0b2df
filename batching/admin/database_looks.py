"""How big the database is and how it fares, as far as its engine tells cheaply: nothing here counts rows.

Called by the page *Workers and queues*.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Max

from batching.admin import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

_TABLES_SHOWN: Final = 15
_WITHIN_MS: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class TableLook:
    """One table; None: the engine does not tell."""

    name: str
    size_bytes: int | None = None
    rows: int | None = None
    """About how many; on SQLite the newest row's id."""
    dead_rows: int | None = None
    """About how many wait for VACUUM."""
    vacuumed_at: datetime | None = None
    analyzed_at: datetime | None = None

    @property
    def size(self) -> str:
        """With its indexes and what stands beside it."""
        return shown.size(self.size_bytes)


@dataclass(frozen=True, kw_only=True)
class DatabaseLook:
    """The database as a whole, and its biggest tables."""

    engine: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[TableLook]
    has_sizes: bool
    trouble: str = ""


def look() -> DatabaseLook:
    """Look at the database; one that does not answer in time says so."""
    engine = _on_postgresql if connection.vendor == "postgresql" else _on_sqlite
    try:
        return engine()
    except DatabaseError as problem:
        trouble = f"does not answer ({type(problem).__name__})"
        return DatabaseLook(engine=connection.vendor, facts=(), tables=(), has_sizes=False, trouble=trouble)  # fmt: skip


def _on_postgresql() -> DatabaseLook:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_WITHIN_MS}")
        cursor.execute(
            "SELECT current_setting('server_version'), pg_database_size(current_database()),"
            " (SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()),"
            " current_setting('max_connections'),"
            " (SELECT MAX(now() - xact_start) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()), current_setting('autovacuum')"
        )
        version, size, used, most, oldest, autovacuum = cursor.fetchone()
        cursor.execute(
            "SELECT s.relname, pg_total_relation_size(s.relid), GREATEST(c.reltuples, 0)::bigint, s.n_dead_tup,"
            " GREATEST(s.last_vacuum, s.last_autovacuum), GREATEST(s.last_analyze, s.last_autoanalyze)"
            " FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid"
            " ORDER BY 2 DESC LIMIT %s",
            [_TABLES_SHOWN],
        )
        tables = [_table(row) for row in cursor.fetchall()]
    facts = [
        ("Size", shown.size(size)),
        ("Write-ahead log", _wal_of_postgresql()),
        ("Connections", f"{used} of {most}"),
        ("Oldest transaction", shown.duration(oldest) if oldest else "none"),
        ("Autovacuum", autovacuum),
    ]
    return DatabaseLook(engine=f"PostgreSQL {version}", facts=facts, tables=tables, has_sizes=True)


def _table(row: tuple[Any, ...]) -> TableLook:
    name, size, rows, dead, vacuumed, analyzed = row
    return TableLook(
        name=name, size_bytes=size, rows=rows, dead_rows=dead, vacuumed_at=vacuumed, analyzed_at=analyzed
    )  # fmt: skip


def _wal_of_postgresql() -> str:
    """Return the size of what lies in pg_wal; only members of pg_monitor are told."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT SUM(size)::bigint FROM pg_ls_waldir()")
            return shown.size(cursor.fetchone()[0])
    except DatabaseError:
        return "not told to this user"


def _on_sqlite() -> DatabaseLook:
    path = Path(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        version = _pragma(cursor, "SELECT sqlite_version()")
        page = int(_pragma(cursor, "PRAGMA page_size"))
        facts = [
            ("Size", shown.size(page * int(_pragma(cursor, "PRAGMA page_count")))),
            ("Write-ahead log", shown.size(_size_of(path.with_name(f"{path.name}-wal")))),
            ("Free within", shown.size(page * int(_pragma(cursor, "PRAGMA freelist_count")))),
            ("Journal", str(_pragma(cursor, "PRAGMA journal_mode"))),
        ]
    tables = sorted(_counted(), key=lambda table: -(table.rows or 0))
    return DatabaseLook(
        engine=f"SQLite {version}", facts=facts, tables=tables[:_TABLES_SHOWN], has_sizes=False
    )


def _pragma(cursor: Any, sql: str) -> Any:
    cursor.execute(sql)
    return cursor.fetchone()[0]


def _counted() -> Iterator[TableLook]:
    """Yield our tables with their newest row's id: SQLite would read a whole table to tell its size."""
    for label in ("batching", "delivery", "django_fsm_log"):
        for model in apps.get_app_config(label).get_models():
            if model._meta.pk.get_internal_type() != "BigAutoField" and label != "django_fsm_log":
                continue
            newest = model._base_manager.aggregate(newest=Max("pk"))["newest"] or 0
            yield TableLook(name=model._meta.db_table, rows=newest)


def _size_of(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
