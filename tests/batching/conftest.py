"""The provider of these tests, and a folder of their own for files."""

from __future__ import annotations

import pytest

from tests.batching.fake_provider import FakeProvider


@pytest.fixture(autouse=True)
def data_dir(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path


@pytest.fixture
def provider(monkeypatch) -> FakeProvider:
    """Stand in for every account's provider, wherever the core connects to one."""
    fake = FakeProvider()
    for module in ("adoption", "submission", "collection", "steering", "direct"):
        monkeypatch.setattr(f"batching.{module}.connect", lambda _account: fake)
    return fake
