"""The first rows are made once, and the environment's accounts kept in step."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate, get_user_model

from batching.addressing import Addressing
from batching.bootstrap import bootstrap
from batching.models import Account, ApiKey, Lane, Override, Project
from tests.batching.rows import NOW, a_line, a_project

pytestmark = pytest.mark.django_db

URL = "http://127.0.0.1:9001/v1"
GIVEN_KEY = "k" * 40
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def nothing_given(settings):
    settings.BATCHER_ADMIN_PASSWORD = settings.BATCHER_BOOTSTRAP_API_KEY = ""
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "", "https://api.openai.com/v1"
    settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "", "https://api.anthropic.com"


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


def test_an_anthropic_key_makes_an_account_of_its_own(settings):
    settings.ANTHROPIC_API_KEY = "sk-ant-one"

    bootstrap(sandbox_url=None)

    account = Account.objects.get()
    assert (account.name, account.kind, account.api_key) == ("anthropic", "anthropic", "sk-ant-one")
    assert account.base_url == "https://api.anthropic.com"


def test_each_endpoint_goes_to_the_side_of_the_sandbox_that_serves_it():
    bootstrap(sandbox_url=URL)
    addressing = Addressing(a_project())

    lanes = {url: addressing.lane(a_line(url=url)).lane_id for url in ("/v1/messages", CHAT)}

    accounts = {url: Lane.objects.get(pk=pk).account for url, pk in lanes.items()}
    assert {url: each.name for url, each in accounts.items()} == {
        "/v1/messages": "sandbox-anthropic",
        CHAT: "sandbox",
    }
    assert accounts["/v1/messages"].base_url == "http://127.0.0.1:9001"


def test_the_sandboxs_account_is_on_only_while_a_sandbox_runs():
    switched = []
    for url in (URL, None, URL):
        bootstrap(sandbox_url=url)
        switched.append(Account.objects.get(name="sandbox").is_enabled)

    assert switched == [True, False, True]


def test_a_start_names_the_settings_that_the_environment_does_not_decide():
    bootstrap(sandbox_url=None)
    for name in ("BATCHER_POLL_SECONDS", "BATCHER_MAX_SPLITS"):
        Override.objects.create(name=name, value="7", reason="r", changed_by="a")

    assert bootstrap(sandbox_url=None) == [
        "Set in the panel, before the environment: BATCHER_MAX_SPLITS, BATCHER_POLL_SECONDS."
    ]
