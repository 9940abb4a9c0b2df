"""Fixtures of the scenarios; the story uses the same ones."""

from __future__ import annotations

from tests.scenarios.fixtures import (  # noqa: F401  # fixtures
    _provider_process,
    account,
    api,
    client_of,
    provider,
    receiver,
    road,
)
