"""What a scenario is played with: a provider, a receiver, an account, a client, and the road between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from django.utils import timezone

from batching.api import memory
from batching.models import Account, ApiKey, Project
from tests.sandbox_process import SandboxProcess
from tests.scenarios.client import Client
from tests.scenarios.receiver import Receiver, receiving
from tests.scenarios.road import Road

Clients = Callable[[str], Client]


@pytest.fixture(scope="session")
def _provider_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess.start(tmp_path_factory.mktemp("provider"), speed=20, seed=7) as process:
        yield process


@pytest.fixture
def provider(_provider_process: SandboxProcess) -> SandboxProcess:
    """Return a sandbox that has seen nothing and behaves."""
    _provider_process.reset()
    return _provider_process


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    """Return a web server on this computer that results may be sent to."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    with receiving() as listening:
        yield listening


@pytest.fixture
def account(transactional_db, provider: SandboxProcess, settings) -> Account:
    """Return the account that requests go through; a scenario may narrow its limits."""
    settings.BATCHER_POLL_SLOWDOWN = 1  # the road skips seconds, not minutes
    return Account.objects.create(
        name="provider",
        kind=Account.Kind.SANDBOX,
        base_url=provider.base_url,
        api_key="any",
        poll_seconds=1,
    )


@pytest.fixture
def client_of(account: Account, live_server) -> Iterator[Clients]:
    """Return a function that makes a client of the project with that name, over real HTTP."""
    memory.forget_all()
    with ExitStack() as clients:

        def make(project_name: str) -> Client:
            project, _ = Project.objects.get_or_create(name=project_name)
            _, key = ApiKey.issue(project, "scenario")
            return clients.enter_context(Client(live_server.url, key))

        yield make
    memory.forget_all()


@pytest.fixture
def api(client_of: Clients) -> Client:
    return client_of("ours")


@pytest.fixture
def road(transactional_db, monkeypatch: pytest.MonkeyPatch) -> Road:
    """Return the road, whose time is this process's from here on."""
    made = Road(timezone.now)
    monkeypatch.setattr("django.utils.timezone.now", made.now)
    return made
