"""``manage.py apikey``: a key's secret is seen once, its use can be ended."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from batching.models import ApiKey, Project
from tests.api.conftest import Api


def run(*words):
    out = io.StringIO()
    call_command("apikey", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_made_key_opens_the_door_and_is_shown_alone(client, project):
    secret = run("create", "ci", "--scope", "read").strip()

    assert Api(client, secret).get("/api/requests").status_code == 200
    assert Api(client, secret).post("/api/requests").status_code == 403
    assert secret not in run("list")


def test_list_tells_states_and_scopes(project):
    key, _ = ApiKey.issue(project, "old", scopes=["submit"])
    run("revoke", key.prefix)

    listed = run("list")

    for word in (key.prefix, "revoked", "ours", "old", "[submit]", "used never"):
        assert word in listed


def test_revoked_key_opens_nothing(client, project):
    secret = run("create", "ci").strip()

    run("revoke", secret[:16])

    assert Api(client, secret).get("/api/requests").status_code == 401


def test_expiry_is_set_in_days(project):
    run("create", "ci", "--expires-days", "30")

    key = ApiKey.objects.get()
    assert 29 < (key.expires_at - key.created_at).total_seconds() / 86_400 < 31


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "ci"), "say --project; there are: ours, theirs"),
        (("create", "ci", "--project", "none"), "no project 'none'"),
        (("create", "ci", "--project", "ours", "--expires-days", "0"), "whole number of days"),
        (("revoke", "bm_live_none"), "no open key begins with"),
    ],
)
def test_wrong_words_are_told_plainly(project, words, message):
    Project.objects.create(name="theirs")

    with pytest.raises(CommandError, match=message):
        run(*words)
