"""PostgreSQL's figures about our tables: taken again when a table has grown much."""

from __future__ import annotations

import pytest
from django.db import connection

from batching import planner
from batching.models import Flag


@pytest.mark.service
@pytest.mark.django_db(transaction=True)
def test_a_table_that_grew_is_counted_once(postgresql_url, caplog):
    caplog.set_level("INFO", logger="batching.planner")
    Flag.objects.bulk_create(Flag(name=f"flag {n}") for n in range(6_000))
    _tell_the_figures()

    planner.analyze_grown()
    _tell_the_figures()

    assert Flag._meta.db_table in caplog.records[0].tables
    assert _expected(Flag) == 6_000
    assert planner.analyze_grown() == 0


def _tell_the_figures() -> None:
    """Make what this connection changed visible to the next look."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    connection.close()


def _expected(model) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE relname = %s", [model._meta.db_table])
        return int(cursor.fetchone()[0])
