"""From DATABASE_URL to Django's DATABASES: SQLite in WAL, IMMEDIATE and FULL, or PostgreSQL.

Decides the pragmas and options that the guarantees rest on; `batcher/settings.py` calls it. Never connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dj_database_url

if TYPE_CHECKING:
    from pathlib import Path

_PRAGMAS = (
    "PRAGMA journal_mode=WAL; "
    "PRAGMA synchronous=FULL; "  # what was answered with 202 survives a power cut
    "PRAGMA busy_timeout=20000; "
    "PRAGMA temp_store=MEMORY; "
    "PRAGMA cache_size=-4000"
)


def database_url(value: str) -> str:
    """Accept nothing, or a URL of SQLite or PostgreSQL; raise ValueError without showing it."""
    if not value:
        return value
    try:
        engine = dj_database_url.parse(value)["ENGINE"]
    except (ValueError, KeyError, dj_database_url.UnknownSchemeError):
        engine = ""
    if not engine.endswith(("sqlite3", "postgresql")):
        raise ValueError("must be like postgresql://user:password@host:5432/name or sqlite:///path")
    return value


def database_settings(url: str, data_dir: Path) -> dict[str, Any]:
    """Return the `default` entry of DATABASES; no `url` means SQLite in `data_dir`."""
    if not url:
        return _sqlite(str(data_dir / "batcher.sqlite3"), data_dir)
    parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    if parsed["ENGINE"].endswith("sqlite3"):
        return _sqlite(parsed["NAME"], data_dir)
    parsed["CONN_MAX_AGE"] = 300
    parsed["CONN_HEALTH_CHECKS"] = True
    parsed["OPTIONS"] = {"connect_timeout": 10, "application_name": "batcher"} | parsed.get(
        "OPTIONS", {}
    )
    return parsed


def _sqlite(name: str, data_dir: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "CONN_MAX_AGE": 300,
        # A deferred transaction that reads first and writes later fails at once when someone wrote in
        # between; IMMEDIATE ones queue up instead.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": _PRAGMAS},
        # A file, not memory: tests with threads and processes need one database that all can open.
        "TEST": {"NAME": str(data_dir / "test.sqlite3")},
    }
