"""Let viewers look at events, operators send them again, and admins say who is told of them."""

from __future__ import annotations

from django.db import migrations

VIEWER = [("eventsubscription", "view"), ("eventdelivery", "view")]
OPERATOR = [*VIEWER, ("eventdelivery", "operate")]
ADMIN = [*OPERATOR, *(("eventsubscription", verb) for verb in ("add", "change", "delete"))]
GROUPS = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}
OPERATE = "Can send events again"


def let_in(apps, schema_editor):
    using = schema_editor.connection.alias
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.add(*(_permission(apps, using, *which) for which in GROUPS[group.name]))


def _permission(apps, using, model, verb):
    """Return a permission; Django makes the missing ones only after all migrations, so make it here."""
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.using(using).get_or_create(app_label="delivery", model=model)
    shown = apps.get_model("delivery", model)._meta.verbose_name_raw
    name = OPERATE if verb == "operate" else f"Can {verb} {shown}"
    return Permission.objects.using(using).get_or_create(
        content_type=kind, codename=f"{verb}_{model}", defaults={"name": name}
    )[0]


def let_out(apps, schema_editor):
    using = schema_editor.connection.alias
    codes = {f"{verb}_{model}" for model, verb in ADMIN}
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    found = permissions.filter(content_type__app_label="delivery", codename__in=codes)
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.remove(*found)


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0007_destination_health"),
        ("batching", "0003_groups"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(let_in, let_out)]
