"""Let PostgreSQL find custom_ids by prefix with the index that keeps them unique.

It compares text by language unless told otherwise, and such an index can't answer ``LIKE 'abc%'``;
SQLite compares bytes as it is.
"""

from __future__ import annotations

from django.db import migrations


def compare_bytes(apps, schema_editor):
    _collate(schema_editor, "C")


def compare_as_before(apps, schema_editor):
    _collate(schema_editor, "default")


def _collate(schema_editor, collation):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE batching_request"
            f' ALTER COLUMN custom_id TYPE varchar(512) COLLATE "{collation}"'
        )


class Migration(migrations.Migration):
    dependencies = [("batching", "0003_groups")]
    operations = [migrations.RunPython(compare_bytes, compare_as_before)]
