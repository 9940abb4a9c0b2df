"""Secrets at rest: a text field that the database only ever sees encrypted.

Fernet with several keys (``BATCHER_ENCRYPTION_KEYS``): the first one writes, all of them read, so a
key is rotated by putting the new one in front and saving the rows again.
"""

from __future__ import annotations

from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.BATCHER_ENCRYPTION_KEYS])


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # stubs can't see the pair
    """Text that is encrypted on its way in and decrypted on its way out; can't be searched.

    Raises ImproperlyConfigured on reading when no key fits.
    """

    def get_prep_value(self, value: Any) -> str | None:
        if not value:
            return value  # type: ignore[no-any-return]
        return _fernet().encrypt(str(value).encode()).decode()

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        if not value:
            return value
        try:
            return _fernet().decrypt(value.encode()).decode()
        except InvalidToken as error:
            raise ImproperlyConfigured(
                "BATCHER_ENCRYPTION_KEYS does not hold the key that a stored secret was written with"
            ) from error
