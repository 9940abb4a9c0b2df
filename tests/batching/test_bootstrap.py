"""The first rows are made once, and the environment's accounts kept in step."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate, get_user_model

from batching.bootstrap import bootstrap
from batching.models import Account, ApiKey, Project
from tests.batching.rows import NOW

pytestmark = pytest.mark.django_db

URL = "http://127.0.0.1:9001/v1"
GIVEN_KEY = "k" * 40


@pytest.fixture(autouse=True)
def nothing_given(settings):
    settings.BATCHER_ADMIN_PASSWORD = settings.BATCHER_BOOTSTRAP_API_KEY = ""
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "", "https://api.openai.com/v1"


def rows():
    kinds = (Project, ApiKey, Account, get_user_model())
    return [list(kind.objects.order_by("pk").values()) for kind in kinds]


def test_a_second_start_changes_nothing_and_shows_no_secret():
    first = bootstrap(sandbox_url=URL)
    before = rows()

    second = bootstrap(sandbox_url=URL)

    assert rows() == before
    assert len([line for line in first if "shown once" in line]) == 2
    assert second == []


def test_secrets_that_were_made_work():
    password_line, key_line = bootstrap(sandbox_url=None)

    password = password_line.split("password ")[1].split()[0]
    secret = key_line.split()[2]
    assert authenticate(username="admin", password=password).is_superuser
    assert ApiKey.objects.valid(NOW).holding(secret).get().project.name == "default"


def test_secrets_that_were_given_are_taken_and_not_shown(settings):
    settings.BATCHER_ADMIN_PASSWORD, settings.BATCHER_BOOTSTRAP_API_KEY = "pass-word", GIVEN_KEY

    lines = bootstrap(sandbox_url=None)
    bootstrap(sandbox_url=None)

    assert not any("pass-word" in line or GIVEN_KEY in line for line in lines)
    assert authenticate(username="admin", password="pass-word")
    assert ApiKey.objects.holding(GIVEN_KEY).count() == 1


def test_the_environments_account_follows_the_environment(settings):
    settings.OPENAI_API_KEY = "sk-one"
    bootstrap(sandbox_url=None)
    settings.OPENAI_API_KEY = "sk-two"
    bootstrap(sandbox_url=None)

    account = Account.objects.get()
    assert (account.name, account.kind, account.api_key) == ("openai", "openai", "sk-two")


def test_the_sandboxs_account_is_on_only_while_a_sandbox_runs():
    switched = []
    for url in (URL, None, URL):
        bootstrap(sandbox_url=url)
        switched.append(Account.objects.get(name="sandbox").is_enabled)

    assert switched == [True, False, True]
