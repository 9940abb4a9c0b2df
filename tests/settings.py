"""The settings that tests run in: our own, on a temporary DATA_DIR, and none of the developer's keys.

DATABASE_URL, RABBITMQ_URL and CELERY_BROKER_URL are taken as they are given, so that the same suite runs
on SQLite with nothing installed and on servers. Each xdist process has a folder of its own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_TAKEN_AS_GIVEN = {"DATABASE_URL", "RABBITMQ_URL"}
_OURS = (
    "BATCHER_",
    "OPENAI_",
    "ANTHROPIC_",
    "RABBITMQ_",
    "CELERY_",
    "DJANGO_",
    "CSRF_",
    "ALLOWED_",
)


def _forget_environment() -> None:
    """Leave no variable of ours that would make a test pass here and fail elsewhere."""
    kept = _TAKEN_AS_GIVEN | {"DJANGO_SETTINGS_MODULE", "BATCHER_REQUIRE_SERVICES"}
    for name in list(os.environ):
        if name not in kept and (
            name.startswith(_OURS) or name in {"DEBUG", "PORT", "SECRET_KEY", "SECRET_KEY_FILE"}
        ):
            del os.environ[name]


_folder = tempfile.mkdtemp(prefix="batcher-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_forget_environment()
os.environ["DATA_DIR"] = _folder
os.environ["BATCHER_LOG_LEVEL"] = "WARNING"

from batcher.settings import *  # noqa: E402, F403  # after the environment is ours

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
