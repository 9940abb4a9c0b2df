"""What every test may use: services that are there or a skip that says why."""

from __future__ import annotations

import importlib
import os
import socket
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from django.core.servers.basehttp import WSGIRequestHandler
from django.db import connection

from batching import overrides

_ONCE = tuple(
    Path(__file__).parent / name
    for name in (
        "browser",
        "providers",
        "sandbox",
        "wiring/test_embedded_broker.py",
        "wiring/test_environment.py",
        "wiring/test_supervisor.py",
    )
)
"""What no database and no broker has a part in, or what the other run would only repeat."""
REQUIRE_SERVICES = os.environ.get("BATCHER_REQUIRE_SERVICES") == "1"


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """Return the URL of a RabbitMQ server that answers; without one, skip (or fail where services must be)."""
    return _answering("RABBITMQ_URL", default_port=5672)


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    """Return the URL of the PostgreSQL server that the suite runs on, or skip."""
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        missing("DATABASE_URL names no PostgreSQL server")
    return _answering("DATABASE_URL", default_port=5432)


def _answering(variable: str, default_port: int) -> str:
    url = os.environ.get(variable, "")
    if not url:
        missing(f"{variable} is not set")
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or default_port), timeout=3).close()
    except OSError as problem:
        missing(f"nothing answers at {variable}: {problem}")
    return url


def missing(reason: str) -> NoReturn:
    """Skip the test at hand, or fail it where every service must be there."""
    if REQUIRE_SERVICES:
        pytest.fail(f"BATCHER_REQUIRE_SERVICES=1, but {reason}")
    pytest.skip(reason)


def pytest_collection_modifyitems(config, items):
    """Play some tests in one of the two runs only: in the one without services."""
    once = {item for item in items if any(map(item.path.is_relative_to, _ONCE))}
    if REQUIRE_SERVICES and once:
        config.hook.pytest_deselected(items=list(once))
        items[:] = [item for item in items if item not in once]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skipped service test into a failure where every service must be there."""
    report = yield
    if REQUIRE_SERVICES and report.skipped and item.get_closest_marker("service"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but BATCHER_REQUIRE_SERVICES=1: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def rows_can_be_emptied_between_tests():
    """Let Django's flush past the triggers that keep the audit log whole; on PostgreSQL make it fast, too.

    To TRUNCATE some fifty tables makes as many files, to DELETE the few rows of a test is nothing.
    """
    migration = importlib.import_module("batching.migrations.0006_keys_and_audit")
    flush = connection.ops.sql_flush

    def on_sqlite(*args, **options):
        return [*migration.UNDO["sqlite"], *flush(*args, **options), *migration.SQLITE]

    def on_postgresql(style, tables, **options):
        quoted = [connection.ops.quote_name(table) for table in tables]
        return [
            "SET session_replication_role = replica",  # no triggers: neither ours nor foreign keys'
            *(f"DELETE FROM {table}" for table in quoted),  # noqa: S608 Django names them
            "SET session_replication_role = DEFAULT",
        ]

    empty = on_sqlite if connection.vendor == "sqlite" else on_postgresql
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connection.ops), "sql_flush", staticmethod(empty))
        yield


@pytest.fixture(autouse=True)
def nothing_is_overridden(monkeypatch):
    """Let each setting be what the test says, without a look at the table, until a test makes it look."""
    nothing = overrides.Held(values={}, until=float("inf"))
    monkeypatch.setattr(overrides, "_held", nothing)


@pytest.fixture(scope="session", autouse=True)
def answers_of_the_test_server_at_once():
    """Send the body of an answer right behind its headers: Nagle's wait is 40 ms of each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
        yield
