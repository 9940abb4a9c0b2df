"""Write the times at which requests ended as Django writes them: on SQLite they are compared as text.

The database's own clock gave three digits behind the second, Django gives six, or none when they are 0. A
client that pulled results page by page missed those that ended in one moment with the last of a page.
"""

from __future__ import annotations

from django.db import migrations

AT_ONCE = 10_000
REWRITE = """
    UPDATE batching_request SET settled_at = REPLACE(settled_at || '000', '.000000', '')
    WHERE id IN (
        SELECT id FROM batching_request WHERE settled_at IS NOT NULL AND LENGTH(settled_at) = 23 LIMIT %s
    )
"""


def rewrite(apps, schema_editor):
    if schema_editor.connection.vendor != "sqlite":
        return
    with schema_editor.connection.cursor() as cursor:
        changed = AT_ONCE
        while changed == AT_ONCE:
            changed = cursor.execute(REWRITE, [AT_ONCE]).rowcount


class Migration(migrations.Migration):
    dependencies = [("batching", "0019_tallies")]
    operations = [migrations.RunPython(rewrite, migrations.RunPython.noop)]
