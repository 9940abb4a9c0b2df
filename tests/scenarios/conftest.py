"""Fixtures of the scenarios; the story uses the same ones."""

from __future__ import annotations

from tests.delivery.own_broker import _own_node, own_broker  # noqa: F401  # fixtures
from tests.scenarios.fixtures import (  # noqa: F401  # fixtures
    _provider_process,
    account,
    api,
    client_of,
    provider,
    receiver,
    road,
)
