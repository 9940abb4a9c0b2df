"""Why delivery was given up stands on the request, so that dead letters are grouped by one index; they may be discarded."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("batching", "0028_bad_ends")]

    operations = [
        migrations.AddField("request", "dead_cause", models.CharField(blank=True, max_length=60, null=True)),
        migrations.AddField("request", "discarded_at", models.DateTimeField(blank=True, null=True)),
    ]
