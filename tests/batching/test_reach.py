"""Which addresses a delivery may reach, range by range."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from batching.reach import (
    AddressBlockedError,
    AddressGuard,
    InvalidDestinationError,
    parse_url,
)

SHUT = AddressGuard()

DENIED = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
    "::/96",
    "::ffff:0:0/104",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


def is_let_through(guard, address, host="example.com", port=443):
    try:
        guard.judge(host, port, [address])
    except AddressBlockedError:
        return False
    return True


@pytest.mark.parametrize("text", DENIED)
def test_a_denied_range_is_denied_from_its_first_address_to_its_last(text):
    network = ip_network(text)
    rng = random.Random(text)  # noqa: S311  # repeatable on purpose
    inside = [rng.randrange(network.num_addresses) for _ in range(50)]

    for offset in [0, network.num_addresses - 1, *inside]:
        assert not is_let_through(SHUT, str(network[offset]))


@pytest.mark.parametrize(
    "address",
    [
        "255.255.255.255",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "fd00:ec2::254",
        "fe80::1%lo",
        "fec0::1",
    ],
)
def test_every_disguise_of_a_private_address_is_seen_through(address):
    assert not is_let_through(SHUT, address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_let_through(address):
    assert is_let_through(SHUT, address)


def test_nothing_that_python_calls_private_is_let_through():
    rng = random.Random(3)  # noqa: S311  # repeatable on purpose
    for _ in range(20_000):
        for address in (IPv4Address(rng.getrandbits(32)), IPv6Address(rng.getrandbits(128))):
            # 64:ff9b:1::/48 and the like are ours; what Python adds to our list would show here.
            if address.is_private or address.is_multicast or address.is_loopback:
                assert not is_let_through(SHUT, str(address)), address


def test_one_denied_address_refuses_the_host():
    with pytest.raises(AddressBlockedError, match=r"example\.com leads to 10\.0\.0\.1"):
        SHUT.judge("example.com", 443, ["8.8.8.8", "10.0.0.1"])


def test_a_mapped_address_is_connected_to_as_what_it_is():
    assert SHUT.judge("example.com", 443, ["::ffff:8.8.8.8"]) == ["8.8.8.8"]


@pytest.mark.parametrize(
    ("entry", "address", "host", "port", "expected"),
    [
        ("127.0.0.0/8", "127.0.0.1", "localhost", 9999, True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", "localhost", 9999, True),
        ("127.0.0.0/8", "10.0.0.1", "localhost", 80, False),
        ("127.0.0.1", "127.0.0.1", "localhost", 9999, True),
        ("127.0.0.1", "127.0.0.2", "localhost", 9999, False),
        ("127.0.0.1:9999", "127.0.0.1", "localhost", 9999, True),
        ("127.0.0.1:9999", "127.0.0.1", "localhost", 80, False),
        ("[::1]:9000", "::1", "::1", 9000, True),
        ("::1", "::1", "::1", 9000, True),
        ("receiver", "10.1.2.3", "receiver", 5000, True),
        ("Receiver.", "10.1.2.3", "receiver", 5000, True),
        ("receiver", "10.1.2.3", "receiver.", 5000, True),
        ("receiver", "10.1.2.3", "other", 80, False),
        ("receiver", "10.1.2.3", "evil-receiver", 80, False),
        ("python-http_webhook:8080", "10.1.2.3", "python-http_webhook", 8080, True),
        ("python-http_webhook:8080", "10.1.2.3", "python-http_webhook", 8081, False),
        ("hooks.example.com:9443", "8.8.8.8", "hooks.example.com", 9443, True),
        ("bücher.example", "10.0.0.1", "xn--bcher-kva.example", 80, True),
        ("64:ff9b::/96", "64:ff9b::a00:1", "x", 80, False),
        ("64:ff9b::/96", "64:ff9b::808:808", "x", 80, True),
    ],
)
def test_an_opening_lets_through_what_it_names(entry, address, host, port, expected):
    guard = AddressGuard.opening([entry])

    assert is_let_through(guard, address, host, port) is expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("0.0.0.0/0", False),
        ("169.254.0.0/16", False),
        ("metadata.internal", False),
        ("169.254.169.254/32", True),
        ("169.254.169.254", True),
    ],
)
def test_metadata_stays_shut_unless_named_alone(entry, expected):
    guard = AddressGuard.opening([entry])

    assert is_let_through(guard, "169.254.169.254", "metadata.internal", 80) is expected


@pytest.mark.parametrize(
    "address", ["168.63.129.16", "fe80::1", "100.100.100.200", "fd00:ec2::254"]
)
def test_the_other_metadata_addresses_stay_shut_too(address):
    guard = AddressGuard.opening(["0.0.0.0/0", "::/0"])

    assert not is_let_through(guard, address)


def test_unusual_ports_are_shut():
    with pytest.raises(AddressBlockedError, match="port 25 is not open"):
        SHUT.judge("example.com", 25, ["8.8.8.8"])


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.0/33", "10.0.0.1/8", "a b", "", "http://x", "x/y", "u@x", "x:99999", "x?y", "*"],
)
def test_an_entry_that_cannot_be_read_is_named(entry):
    with pytest.raises(ValueError, match="is not a"):
        AddressGuard.opening([entry])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("https://example.com/" + "x" * 2048, "longer than"),
        ("ftp://example.com/", "must start"),
        ("//example.com/", "must start"),
        ("example.com", "must start"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user@example.com/", "credentials"),
        ("https://user:pw@example.com/", "credentials"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com/a b", "blank"),
        ("https://example.com/\r\nx: y", "control"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "parsed"),
        ("https://[::1/", "parsed"),
    ],
)
def test_an_unfit_url_is_refused_without_quoting_it(text, complaint):
    with pytest.raises(InvalidDestinationError, match=complaint) as caught:
        parse_url(text)

    assert "example" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://example.com/hook?token=1", "example.com", 443),
        ("HTTP://Example.COM", "example.com", 80),
        ("http://python-http-webhook:8080/w", "python-http-webhook", 8080),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("http://[::1]:9/", "::1", 9),
    ],
)
def test_a_fit_url_is_read_as_the_client_reads_it(text, host, port):
    url = parse_url(text)

    assert (url.raw_host, url.port) == (host, port)


def test_plain_http_can_be_forbidden():
    with pytest.raises(InvalidDestinationError, match="https://"):
        parse_url("http://example.com/", https_only=True)


OPENED = AddressGuard.opening(["10.0.0.0/8", "receiver:9000", "127.0.0.1"], allows_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com:8443/",
        "http://receiver:9000/x",
        "http://10.1.2.3:5000/",
        "http://127.0.0.1/",
        "http://somewhere-inside:1234/",  # may be in the opened network: each try tells
    ],
)
def test_a_url_that_may_work_can_be_saved(url):
    assert str(OPENED.check_url(url)) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "http:// is for"),
        ("https://example.com:6379/", "port 6379"),
        ("https://192.168.1.1/", "private"),
        ("https://[::ffff:169.254.169.254]/", "metadata"),
        ("https://user:pw@example.com/", "credentials"),
        ("ftp://example.com/", "http"),
    ],
)
def test_a_url_that_never_works_is_refused_when_it_is_saved(url, why):
    guard = AddressGuard.opening(["receiver:9000"], allows_http=False)

    with pytest.raises(InvalidDestinationError, match=why):
        guard.check_url(url)
