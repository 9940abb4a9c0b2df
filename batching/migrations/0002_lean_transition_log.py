"""Fit django-fsm-log's table to many millions of rows.

Its id and object_id are 32-bit, and on PostgreSQL it carries eight indexes of which we use none as
they are; they cost over a third of a bulk load. One index of ours serves every question we ask: the
moves of one row, in order.
"""

from __future__ import annotations

from django.db import migrations

TABLE = "django_fsm_log_statelog"
OURS = "statelog_of_object"


def _own_indexes(schema_editor):
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, TABLE)
    return [
        name for name, c in found.items() if c["index"] and not c["primary_key"] and not c["unique"]
    ]


def make_lean(apps, schema_editor):
    quote = schema_editor.quote_name
    for name in _own_indexes(schema_editor):
        schema_editor.execute(f"DROP INDEX IF EXISTS {quote(name)}")
    schema_editor.execute(f"CREATE INDEX {OURS} ON {TABLE} (content_type_id, object_id, id)")
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            f"ALTER TABLE {TABLE} ALTER COLUMN id TYPE bigint, ALTER COLUMN object_id TYPE bigint"
        )
        schema_editor.execute(f"ALTER SEQUENCE {TABLE}_id_seq AS bigint")


def make_wide_again(apps, schema_editor):
    """Bring back one index a column; the wider numbers stay, since they may be in use."""
    schema_editor.execute(f"DROP INDEX IF EXISTS {OURS}")
    for column in ("source_state", "state", "object_id", "content_type_id", "by_id"):
        schema_editor.execute(f"CREATE INDEX statelog_{column} ON {TABLE} ({column})")


class Migration(migrations.Migration):
    dependencies = [
        ("batching", "0001_initial"),
        ("django_fsm_log", "0004_auto_20190131_0341"),
    ]
    operations = [migrations.RunPython(make_lean, make_wide_again)]
