"""What a destination asks for: its headers, schedule, limits, and the secret that is rotated out."""

from __future__ import annotations

import batching.encryption
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('batching', '0006_keys_and_audit'),
    ]

    operations = [
        migrations.AddField(
            model_name='destination',
            name='fail_fast_on_4xx',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='destination',
            name='headers',
            field=batching.encryption.EncryptedTextField(blank=True, default=''),
        ),
        migrations.AddField(
            model_name='destination',
            name='max_in_flight',
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='destination',
            name='max_inline_bytes',
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='destination',
            name='max_per_second',
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='destination',
            name='previous_secret',
            field=batching.encryption.EncryptedTextField(blank=True, default='', editable=False),
        ),
        migrations.AddField(
            model_name='destination',
            name='previous_secret_until',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='destination',
            name='retry_delays_s',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='destination',
            name='timeout_s',
            field=models.FloatField(blank=True, null=True),
        ),
    ]
