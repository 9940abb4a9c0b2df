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


@pytest.fixture
def sandbox(running_sandbox: SandboxProcess) -> SandboxProcess:
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def client(sandbox: SandboxProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url, api_key="any", max_retries=0, timeout=20) as openai:
        yield openai


@pytest.fixture
def drive(client: OpenAI) -> Driver:
    return Driver(client)
