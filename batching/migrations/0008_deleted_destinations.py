"""Destinations that are deleted and kept for the history; an index of what was given up at each."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('batching', '0007_destination_terms'),
    ]

    operations = [
        migrations.AddField(
            model_name='destination',
            name='deleted_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name='request',
            index=models.Index(condition=models.Q(('dead_at__isnull', False)), fields=['destination', 'dead_at'], name='request_dead'),
        ),
    ]
