"""Accounts at Anthropic; batches whose creation is in doubt, and those adopted before it is proven whose they are."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('batching', '0010_capacity'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='doubtful_since',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='batch',
            name='is_unproven',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AlterField(
            model_name='account',
            name='kind',
            field=models.CharField(choices=[('openai', 'OpenAI or compatible'), ('anthropic', 'Anthropic'), ('sandbox', 'Sandbox'), ('sandbox-anthropic', "Sandbox, Anthropic's side")], default='openai', max_length=20),
        ),
    ]
