"""People in each role, logged in, and rows for them to look at."""

from __future__ import annotations

import importlib

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import connection

ROLES = ("nobody", "viewer", "operator", "admin", "root")
groups = importlib.import_module("batching.migrations.0003_groups")
intake_groups = importlib.import_module("delivery.migrations.0003_intake_groups")
event_groups = importlib.import_module("delivery.migrations.0008_event_groups")
override_groups = importlib.import_module("batching.migrations.0022_override_groups")
run_groups = importlib.import_module("batching.migrations.0024_run_groups")
export_groups = importlib.import_module("batching.migrations.0026_export_groups")
replay_groups = importlib.import_module("delivery.migrations.0010_replay_groups")


def person(role: str) -> User:
    """A user of this role; nobody is staff without a group, root a superuser."""
    user = User.objects.create_user(
        f"the-{role}", password="a password", is_staff=True, is_superuser=role == "root"
    )
    if role in groups.GROUPS:
        if not Group.objects.filter(
            name=role
        ).exists():  # a test that empties tables took them along
            with connection.schema_editor() as editor:
                groups.make_groups(apps, editor)
                intake_groups.let_look(apps, editor)
                event_groups.let_in(apps, editor)
                replay_groups.let_in(apps, editor)
                override_groups.let_in(apps, editor)
                run_groups.let_in(apps, editor)
                export_groups.let_in(apps, editor)
        user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def as_(db, client):
    """Log a role in and return the client: ``as_("viewer").get(...)``."""

    def log_in(role: str):
        client.force_login(person(role))
        return client

    return log_in
