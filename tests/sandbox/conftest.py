"""One sandbox for all tests of a run, emptied before each; and the official SDK to drive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.sandbox.driving import Driver
from tests.sandbox_process import SandboxProcess


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess.start(tmp_path_factory.mktemp("sandbox"), speed=20, seed=7) as process:
        yield process
        assert process.errors() == "", "it logs nothing unless something is wrong with it"


@pytest.fixture(scope="session")
def openai_client(running_sandbox: SandboxProcess) -> Iterator[OpenAI]:
    url = running_sandbox.base_url
    with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def sandbox(running_sandbox: SandboxProcess) -> SandboxProcess:
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def client(sandbox: SandboxProcess, openai_client: OpenAI) -> OpenAI:
    """Return a client of a sandbox that is empty."""
    return openai_client


@pytest.fixture
def drive(client: OpenAI) -> Driver:
    return Driver(client)
