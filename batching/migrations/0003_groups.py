"""Make the groups viewer, operator and admin, with what each may do.

Viewers look, and see no prompt and no answer. Operators also act and may open bodies. Admins also keep
accounts, keys, destinations, projects and users, and may delete ended batches. Groups of the same name
that are there already are given these permissions on top of their own.
"""

from __future__ import annotations

from django.db import migrations

LOOK = [
    ("batching", "batch"), ("batching", "request"), ("batching", "submission"), ("batching", "lane"),
    ("batching", "destination"), ("batching", "account"), ("batching", "project"), ("batching", "flag"),
    ("delivery", "attempt"), ("django_fsm_log", "statelog"), ("django_celery_beat", "periodictask"),
]
VIEWER = [(app, model, f"view_{model}") for app, model in LOOK]
OPERATOR = [
    *VIEWER,
    ("batching", "batch", "operate_batch"),
    ("batching", "request", "operate_request"),
    ("batching", "request", "view_payload"),
    ("batching", "destination", "operate_destination"),
    ("batching", "flag", "add_flag"),
    ("batching", "flag", "change_flag"),
]
SCHEDULES = ("intervalschedule", "crontabschedule", "solarschedule", "clockedschedule")
ADMIN = [
    *OPERATOR,
    ("batching", "batch", "delete_batch"),
    ("batching", "lane", "change_lane"),
    *(("batching", model, f"{verb}_{model}")
      for model in ("project", "destination") for verb in ("add", "change")),
    *(("batching", "account", f"{verb}_account") for verb in ("add", "change", "delete")),
    *(("batching", "apikey", f"{verb}_apikey") for verb in ("view", "add", "change")),
    *(("auth", "user", f"{verb}_user") for verb in ("view", "add", "change", "delete")),
    ("auth", "group", "view_group"),
    *(("django_celery_beat", "periodictask", f"{verb}_periodictask") for verb in ("add", "change")),
    *(("django_celery_beat", model, f"{verb}_{model}")
      for model in SCHEDULES for verb in ("view", "add", "change")),
]
GROUPS = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}

NAMES = {
    "operate_batch": "Can seal, cancel, restart and redeliver batches",
    "operate_request": "Can cancel, retry and redeliver requests",
    "view_payload": "Can read request bodies and answers",
    "operate_destination": "Can pause and resume destinations",
}


def make_groups(apps, schema_editor):
    using = schema_editor.connection.alias
    Group = apps.get_model("auth", "Group")
    for name, wanted in GROUPS.items():
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*(_permission(apps, using, *names) for names in wanted))


def _permission(apps, using, app, model, codename):
    """Return a permission; Django makes the missing ones only after all migrations, so make it here."""
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    kind, _ = ContentType.objects.using(using).get_or_create(app_label=app, model=model)
    verb = codename.split("_")[0]
    name = NAMES.get(codename) or f"Can {verb} {apps.get_model(app, model)._meta.verbose_name_raw}"
    return Permission.objects.using(using).get_or_create(
        content_type=kind, codename=codename, defaults={"name": name}
    )[0]


def remove_groups(apps, schema_editor):
    Group = apps.get_model("auth", "Group")
    Group.objects.using(schema_editor.connection.alias).filter(name__in=GROUPS).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("batching", "0002_lean_transition_log"),
        ("delivery", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
        ("django_fsm_log", "0004_auto_20190131_0341"),
    ]
    operations = [migrations.RunPython(make_groups, remove_groups)]
