"""Let the groups viewer, operator and admin look at refused messages and at how the intake is.

What a message holds is shown only to those who may open bodies, as everywhere.
"""

from __future__ import annotations

from django.db import migrations

GROUPS = ("viewer", "operator", "admin")
MODELS = ("rejection", "intakestatus")


def let_look(apps, schema_editor):
    using = schema_editor.connection.alias
    permissions = [_permission(apps, using, model) for model in MODELS]
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.add(*permissions)


def _permission(apps, using, model):
    """Return a permission; Django makes the missing ones only after all migrations, so make it here."""
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.using(using).get_or_create(app_label="delivery", model=model)
    name = f"Can view {apps.get_model('delivery', model)._meta.verbose_name_raw}"
    return Permission.objects.using(using).get_or_create(
        content_type=kind, codename=f"view_{model}", defaults={"name": name}
    )[0]


def let_no_more(apps, schema_editor):
    using = schema_editor.connection.alias
    codes = [f"view_{model}" for model in MODELS]
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    found = permissions.filter(content_type__app_label="delivery", codename__in=codes)
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.remove(*found)


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0002_intake"),
        ("batching", "0003_groups"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(let_look, let_no_more)]
