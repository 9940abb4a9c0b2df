"""What PostgreSQL's planner knows of our tables, kept fresh while they grow.

Autovacuum looks once a minute, where it runs at all, and a bulk upload brings a hundred thousand rows in
seconds: until somebody counts, the planner takes the table for what it was, and reads all of it for each
page. SQLite's plans need no such figures.
"""

from __future__ import annotations

import logging

from django.apps import apps
from django.db import connection

logger = logging.getLogger(__name__)

_LEAST_ROWS = 5_000
"""Fewer changes than these are never worth a look."""
_SHARE = 0.2
"""Of the rows counted last: so many changes make the figures old."""
_GROWN = """
    SELECT relname FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND relname = ANY(%s)
      AND n_mod_since_analyze > %s + %s * GREATEST(n_live_tup - n_mod_since_analyze, 0)
    ORDER BY relname
"""


def analyze_grown() -> int:
    """Let PostgreSQL look again at tables that changed much since it did; returns how many."""
    if connection.vendor != "postgresql":
        return 0
    tables = [model._meta.db_table for model in apps.get_models()]
    with connection.cursor() as cursor:
        cursor.execute(_GROWN, [tables, _LEAST_ROWS, _SHARE])
        grown = [name for (name,) in cursor.fetchall()]
        for name in grown:
            cursor.execute(f"ANALYZE {connection.ops.quote_name(name)}")
    if grown:
        logger.info("tables analyzed", extra={"tables": ", ".join(grown)})
    return len(grown)
