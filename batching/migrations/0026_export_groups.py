"""Let the groups viewer, operator and admin look at exports, and the last two order, download and stop them."""

from __future__ import annotations

from django.db import migrations

VIEWER = {"view_export": "Can view export"}
OPERATOR = {**VIEWER, "order_export": "Can export requests, and download and stop exports"}
GROUPS = {"viewer": VIEWER, "operator": OPERATOR, "admin": OPERATOR}


def let_in(apps, schema_editor):
    using = schema_editor.connection.alias
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.add(*_permissions(apps, using, GROUPS[group.name]))


def _permissions(apps, using, names):
    """Return permissions; Django makes the missing ones only after all migrations, so make them here."""
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.using(using).get_or_create(app_label="batching", model="export")
    found = Permission.objects.using(using)
    return [
        found.get_or_create(content_type=kind, codename=code, defaults={"name": name})[0]
        for code, name in names.items()
    ]


def let_out(apps, schema_editor):
    using = schema_editor.connection.alias
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    found = permissions.filter(content_type__app_label="batching", codename__in=OPERATOR)
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.remove(*found)


class Migration(migrations.Migration):
    dependencies = [
        ("batching", "0025_exports"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(let_in, let_out)]
