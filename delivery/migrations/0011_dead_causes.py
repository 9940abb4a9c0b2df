"""Write on what was given up before how its last try ended, a window of ids at a time."""

from __future__ import annotations

from django.db import migrations

_WINDOW = 20_000
_FILL = """
    UPDATE batching_request SET dead_cause = (
        SELECT outcome || CASE WHEN status IS NULL THEN '' ELSE ':' || status END
        FROM delivery_attempt WHERE request_id = batching_request.id ORDER BY id DESC LIMIT 1
    ) WHERE dead_at IS NOT NULL AND dead_cause IS NULL AND id > %s AND id <= %s
"""


def fill(apps, schema_editor):
    dead = apps.get_model("batching", "Request").objects.filter(dead_at__isnull=False).order_by()
    ids = sorted(dead.values_list("pk", flat=True).iterator())
    with schema_editor.connection.cursor() as cursor:
        for place in range(0, len(ids), _WINDOW):
            window = ids[place : place + _WINDOW]
            cursor.execute(_FILL, [window[0] - 1, window[-1]])


class Migration(migrations.Migration):
    dependencies = [("delivery", "0010_replay_groups"), ("batching", "0030_dead_letter_indexes")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
