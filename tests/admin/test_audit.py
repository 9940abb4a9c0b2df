"""Who did what is written down once, by every way in, and nobody changes it."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.urls import reverse

from batching.api import memory
from batching.models import Account, ApiKey, AuditEntry, Destination, Flag, Project
from tests.admin.conftest import person
from tests.api.conftest import Api
from tests.batching.rows import a_batch, a_destination, a_request


@pytest.fixture
def keeper(as_):
    """An administrator, logged in; the log is empty."""
    return as_("root")


def only(action):
    return AuditEntry.objects.get(action=action)


@pytest.mark.parametrize("change", ["update", "delete"])
def test_the_database_refuses_to_change_or_delete_a_line(db, change):
    AuditEntry.objects.create(actor="a", action="x")

    rows = AuditEntry.objects.all()
    act = {"update": lambda: rows.update(actor="b"), "delete": lambda: rows._raw_delete(rows.db)}

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        act[change]()

    assert only("x").actor == "a"


def test_the_triggers_outlived_every_migration(db):
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
                           " AND tbl_name = 'batching_auditentry'")  # fmt: skip
            assert cursor.fetchone()[0] == 2
        else:
            cursor.execute("SELECT count(*) FROM pg_trigger"
                           " WHERE tgrelid = 'batching_auditentry'::regclass")  # fmt: skip
            assert cursor.fetchone()[0] >= 1


def test_a_move_in_the_admin_is_recorded_with_who_and_why(keeper):
    place = a_destination()

    keeper.post(
        reverse("admin:batching_destination_pause_one", args=[place.pk]),
        {"confirmed": "yes", "reason": "moving house"},
        headers={"X-Request-Id": "call-7"},
    )

    entry = only("destination.pause")
    assert (entry.actor, entry.reason, entry.object_key) == (
        "user the-root",
        "moving house",
        place.key,
    )
    assert (entry.ip, entry.call_id) == ("127.0.0.1", "call-7")


def test_a_refused_move_is_not_recorded(keeper):
    place = a_destination()
    keeper.post(
        reverse("admin:batching_destination_resume_one", args=[place.pk]),
        {"confirmed": "yes", "reason": "try"},
    )

    assert not AuditEntry.objects.filter(action="destination.resume").exists()


def test_a_changed_account_is_recorded_without_its_key(keeper):
    account = Account.objects.create(
        name="a", kind="sandbox", base_url="http://x/v1", api_key="old-secret"
    )
    form = {"name": "b", "kind": "sandbox", "base_url": "http://x/v1", "api_key": "new-secret"}

    keeper.post(reverse("admin:batching_account_change", args=[account.pk]), form)

    entry = only("account.change")
    assert entry.before == {"name": "a", "api_key": "***", "is_enabled": True}
    assert entry.after == {"name": "b", "api_key": "***", "is_enabled": False}


def test_new_rows_and_deleted_ones_are_recorded(keeper):
    form = {"name": "tenant", "deadline_policy": "wait", "direct_cap": "0"}
    keeper.post(reverse("admin:batching_project_add"), form)
    keeper.post(reverse("admin:batching_flag_add"), {"name": Flag.MAINTENANCE, "is_on": "on"})
    account = Account.objects.create(name="a", kind="sandbox", api_key="a-secret")
    keeper.post(reverse("admin:batching_account_delete", args=[account.pk]), {"post": "yes"})

    assert only("project.add").after["name"] == "tenant"
    assert only("flag.add").after["is_on"] is True
    assert only("account.delete").before["api_key"] == "***"


def test_a_changed_role_is_recorded(keeper):
    user = User.objects.create_user("anna", password="a password")
    viewer = Group.objects.get(name="viewer")
    form = {"username": "anna", "is_active": "on", "groups": [viewer.pk],
            "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}  # fmt: skip

    page = keeper.post(reverse("admin:auth_user_change", args=[user.pk]), form)

    assert page.status_code == 302, page.context["errors"]
    entry = only("user.change")
    assert (entry.before["groups"], entry.after["groups"]) == ([], ["viewer"])
    assert "password" not in entry.after


def test_keys_made_rotated_and_revoked_are_recorded_without_secrets(keeper):
    project = Project.objects.create(name="p")
    made = keeper.post(
        reverse("admin:batching_apikey_add"),
        {"project": project.pk, "name": "ci", "scopes": ["read"], "allowed_models": "gpt-4o*\no3"},
    )
    key = ApiKey.objects.get()
    confirm = {"confirmed": "yes", "reason": "leaked"}
    rotated = keeper.post(reverse("admin:batching_apikey_rotate_one", args=[key.pk]), confirm)
    keeper.post(reverse("admin:batching_apikey_revoke_one", args=[key.pk]), confirm)

    secrets = {page.context["secret"] for page in (made, rotated)}
    assert len(secrets) == 2
    assert key.allowed_models == ["gpt-4o*", "o3"]
    assert {"apikey.add", "apikey.rotate", "apikey.revoke"} <= actions()
    assert not any(secret in str(list(AuditEntry.objects.values())) for secret in secrets)


def actions():
    return set(AuditEntry.objects.values_list("action", flat=True))


def test_wrong_patterns_are_refused(keeper):
    project = Project.objects.create(name="p")
    form = {"project": project.pk, "name": "ci", "scopes": ["read"],
            "allowed_destinations": "https://host/path"}  # fmt: skip

    page = keeper.post(reverse("admin:batching_apikey_add"), form)

    assert "is no place" in page.content.decode()


def test_the_command_is_recorded(db):
    Project.objects.create(name="p")
    out = io.StringIO()
    call_command("apikey", "create", "ci", "--model", "gpt*", stdout=out, stderr=io.StringIO())
    key = ApiKey.objects.get()
    call_command("apikey", "rotate", key.prefix, stdout=out, stderr=io.StringIO())
    call_command("apikey", "revoke", key.prefix, stdout=out, stderr=io.StringIO())

    assert list(AuditEntry.objects.order_by("pk").values_list("action", "actor")) == [
        (f"apikey.{verb}", "command apikey") for verb in ("add", "rotate", "revoke")
    ]
    assert (key.allowed_models, len(out.getvalue().split()[0])) == (["gpt*"], 60)


def test_logins_are_recorded_and_passwords_are_not(client, db):
    person("admin")
    login = reverse("admin:login")
    client.post(login, {"username": "the-admin", "password": "wrong-guess"})
    client.post(login, {"username": "the-admin", "password": "a password"})
    client.post(reverse("admin:logout"))

    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "user.login_failed", "user.login", "user.logout",
    ]  # fmt: skip
    assert "wrong-guess" not in str(list(AuditEntry.objects.values()))


def test_looks_at_payloads_are_recorded(keeper):
    request = a_request(body={"model": "m", "input": "private"})

    keeper.get(reverse("admin:batching_request_payload", args=[request.pk]))

    assert only("payload.view").object_key == request.key


def test_deeds_through_the_api_are_recorded(client, db):
    memory.forget_all()
    request = a_request()
    key, secret = ApiKey.issue(request.project, "k")
    api = Api(client, secret)

    done = api.post(f"/api/requests/{request.key}/cancel")
    refused = api.post(f"/api/requests/{request.key}/cancel")

    assert (done.status_code, refused.status_code) == (202, 422)
    entry = only("request.cancel")
    assert (entry.actor, entry.object_key) == (f"key {key.prefix}", request.key)
    assert entry.call_id == done["X-Request-Id"] != refused["X-Request-Id"]


def test_a_deed_that_is_undone_leaves_no_line(client, db, monkeypatch):
    memory.forget_all()
    request = a_request()
    _, secret = ApiKey.issue(request.project, "k")
    monkeypatch.setattr(AuditEntry, "save", lambda *_, **__: 1 / 0)

    answer = Api(client, secret).post(f"/api/requests/{request.key}/cancel")

    request.refresh_from_db()
    assert (answer.status_code, request.state) == (500, "pending")


def test_the_page_is_read_only_and_shows_anything_inert(keeper):
    entry = AuditEntry.objects.create(
        actor="<script>alert(1)</script>", action="x", before={"a": "<b>"}, object_name="=cmd()"
    )

    listed = keeper.get(
        reverse("admin:batching_auditentry_changelist") + "?action=x"
    ).content.decode()
    page = keeper.get(reverse("admin:batching_auditentry_change", args=[entry.pk]))

    assert "<script>alert(1)" not in listed + page.content.decode()
    assert "&lt;script&gt;alert(1)" in listed
    assert (
        keeper.post(reverse("admin:batching_auditentry_change", args=[entry.pk])).status_code == 403
    )
    assert (
        keeper.get(reverse("admin:batching_auditentry_delete", args=[entry.pk])).status_code == 403
    )


def test_filters_find_by_the_whole_word(keeper):
    for n in range(3):
        AuditEntry.objects.create(actor=f"user {n}", action="batch.seal")

    found = keeper.get(reverse("admin:batching_auditentry_changelist"), {"actor": "user 1"})

    assert [e.actor for e in found.context["cl"].result_list] == ["user 1"]


def test_a_batch_that_is_deleted_is_named(keeper):
    batch = a_batch()
    type(batch).objects.filter(pk=batch.pk).update(state="delivered", next_attempt_at=None)

    keeper.post(reverse("admin:batching_batch_remove_one", args=[batch.pk]),
                {"confirmed": "yes", "reason": "old"})  # fmt: skip

    assert only("batch.remove").object_key == batch.key
    assert not Destination.objects.exists()
