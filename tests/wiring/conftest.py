"""Fixtures of the wiring's tests."""

from __future__ import annotations

from tests.delivery.own_broker import _own_node, own_broker  # noqa: F401  # fixtures
