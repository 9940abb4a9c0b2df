"""Let the group admin change settings in the panel."""

from __future__ import annotations

from django.db import migrations

GROUP, CODE, NAME = "admin", "change_override", "Can change override"


def let_in(apps, schema_editor):
    using = schema_editor.connection.alias
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name=GROUP):
        group.permissions.add(_permission(apps, using))


def _permission(apps, using):
    """Return the permission; Django makes the missing ones only after all migrations, so make it here."""
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.using(using).get_or_create(app_label="batching", model="override")
    return Permission.objects.using(using).get_or_create(
        content_type=kind, codename=CODE, defaults={"name": NAME}
    )[0]


def let_out(apps, schema_editor):
    using = schema_editor.connection.alias
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name=GROUP):
        group.permissions.remove(_permission(apps, using))


class Migration(migrations.Migration):
    dependencies = [
        ("batching", "0021_overrides"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(let_in, let_out)]
