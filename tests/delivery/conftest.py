"""Fixtures of the delivery tests."""

from __future__ import annotations

from tests.delivery.own_broker import _own_node, own_broker  # noqa: F401  # fixtures
