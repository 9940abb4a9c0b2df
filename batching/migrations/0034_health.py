"""How old a destination's secret is, when an account's provider took a call last, and of which kind its last error was."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("batching", "0033_beats")]

    operations = [
        migrations.AddField(
            "destination", "secret_at", models.DateTimeField(blank=True, editable=False, null=True)
        ),
        migrations.AddField(
            "account",
            "last_error_class",
            models.CharField(blank=True, db_default="", default="", editable=False, max_length=120),
        ),
        migrations.AddField(
            "account", "last_success_at", models.DateTimeField(blank=True, editable=False, null=True)
        ),
    ]
