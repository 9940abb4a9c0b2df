"""Secrets at rest: written by the first key, read by any, unreadable without."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from batching.models import Account
from tests.batching.rows import an_account

pytestmark = pytest.mark.django_db

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT api_key FROM {Account._meta.db_table}")  # noqa: S608  # our name
        return cursor.fetchone()[0]


def test_the_database_never_sees_the_secret():
    an_account(api_key="sk-very-secret")

    assert "sk-very" not in stored()
    assert Account.objects.get().api_key == "sk-very-secret"


def test_a_key_is_rotated_by_putting_the_new_one_in_front_and_saving_again(settings):
    settings.BATCHER_ENCRYPTION_KEYS = [OLD]
    an_account(api_key="secret")

    settings.BATCHER_ENCRYPTION_KEYS = [NEW, OLD]
    Account.objects.get().save()

    settings.BATCHER_ENCRYPTION_KEYS = [NEW]
    assert Account.objects.get().api_key == "secret"


def test_a_secret_of_an_unknown_key_names_the_setting(settings):
    settings.BATCHER_ENCRYPTION_KEYS = [OLD]
    an_account(api_key="secret")

    settings.BATCHER_ENCRYPTION_KEYS = [NEW]
    with pytest.raises(ImproperlyConfigured, match="BATCHER_ENCRYPTION_KEYS"):
        Account.objects.get()


def test_nothing_stays_nothing():
    an_account(api_key="")

    assert stored() == ""
    assert Account.objects.get().api_key == ""
