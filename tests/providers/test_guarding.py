"""Where a provider's base URL may lead: judged at each connection, and when it is saved."""

from __future__ import annotations

import socket

import pytest
from django.urls import reverse

from batching import gateway
from batching.models import Account
from batching.providers.base import ProviderError, Trouble
from batching.providers.registry import provider_for
from batching.reach import AddressGuard
from tests.admin.conftest import as_  # noqa: F401
from tests.delivery.certificates import Authority
from tests.delivery.receivers import answering
from tests.delivery.results import listening

MODELS = answering("200 OK", body=b'{"object": "list", "data": []}')


def check(url, *opened, ca=None):
    guard = AddressGuard.opening(opened, ports=None)
    provider = provider_for("openai", base_url=url, api_key="sk", judge=guard.judge)
    if ca:
        provider._http._session.verify = str(ca)
    provider.check()


@pytest.fixture
def named(monkeypatch):
    """Let names under .test lead to this computer, and count the lookups."""
    ask, asked = socket.getaddrinfo, []

    def lookup(host, *args, **how):
        if str(host).endswith(".test"):
            asked.append(host)
            host = "127.0.0.1"
        return ask(host, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


@pytest.mark.parametrize("host", ["127.0.0.1", "provider.test", "[::ffff:127.0.0.1]"])
def test_a_base_url_that_leads_home_gets_no_packet_and_is_the_accounts_fault(named, host):
    with listening(MODELS) as receiver, pytest.raises(ProviderError, match="may not be") as told:
        check(f"http://{host}:{receiver.port}/v1")

    assert told.value.trouble is Trouble.CREDENTIALS
    assert receiver.connections == 0


def test_what_the_operator_opens_is_reached_by_one_lookup(named):
    with listening(MODELS) as receiver:
        check(f"http://provider.test:{receiver.port}/v1", "provider.test")

    assert named == ["provider.test"]
    assert receiver.requests[0].headers["host"] == f"provider.test:{receiver.port}"


def test_the_certificate_is_checked_against_the_name_and_not_the_address(named, tmp_path):
    authority = Authority(tmp_path)
    for host, is_well in (("provider.test", True), ("another.test", False)):
        with listening(MODELS, tls=authority.server(host)) as receiver:
            url = f"https://provider.test:{receiver.port}/v1"
            if is_well:
                check(url, "provider.test", ca=authority.bundle)
                continue
            with pytest.raises(ProviderError):
                check(url, "provider.test", ca=authority.bundle)
            assert receiver.requests == []


def test_a_host_that_does_not_answer_is_tried_at_each_of_its_addresses(monkeypatch):
    ask = socket.getaddrinfo

    def lookup(host, *args, **how):
        if host != "provider.test":
            return ask(host, *args, **how)
        return [*ask("127.0.0.2", *args, **how), *ask("127.0.0.1", *args, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with listening(MODELS) as receiver:
        check(f"http://provider.test:{receiver.port}/v1", "provider.test")

    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("kind", "base_url", "is_judged"),
    [
        ("openai", "http://10.0.0.5:9999/v1/", False),
        ("openai", "http://10.0.0.6:9999/v1", True),
        ("sandbox", "http://127.0.0.1:8001/v1", True),
    ],
)
def test_only_what_the_environment_names_is_trusted_unseen(settings, kind, base_url, is_judged):
    settings.OPENAI_BASE_URL = "http://10.0.0.5:9999/v1"
    account = Account(name="a", kind=kind, base_url=base_url)

    assert (gateway.guard_of(account) is not None) == is_judged


def test_only_a_sandbox_may_be_on_this_computer():
    with listening(MODELS) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/v1"
        gateway.connect(Account(kind="sandbox", base_url=url)).check()
        with pytest.raises(ProviderError, match="private"):
            gateway.connect(Account(kind="openai", base_url=url)).check()


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("http://169.254.169.254/v1", "metadata"),
        ("http://127.0.0.1:6379", "private"),
        ("https://me:pw@api.example.com/v1", "credentials"),
        ("gopher://api.example.com/", "http"),
    ],
)
def test_a_base_url_that_never_works_is_refused_when_it_is_saved(as_, base_url, why):  # noqa: F811
    form = {"name": "mine", "kind": "openai", "base_url": base_url, "api_key": "sk"}

    answer = as_("admin").post(reverse("admin:batching_account_add"), form)

    (told,) = answer.context["adminform"].form.errors["base_url"]
    assert why in told
    assert not Account.objects.exists()
