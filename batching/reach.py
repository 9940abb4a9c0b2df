"""Which addresses we may reach: the guard against server-side request forgery.

Clients choose webhook URLs and people type providers' base URLs, so a URL may aim at our own network. Two
questions are answered here. ``parse_url``: is this a URL that could ever be called? It needs no network
and is asked when one is saved and again at each call. ``AddressGuard.judge``: may a call to this host
and port connect to these addresses? It is asked once the host is resolved, before any packet leaves.

Senders of webhooks and providers ask the guard at each connection. Nothing here resolves a name or opens
a socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from yarl import URL

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048
USUAL_PORTS = frozenset({80, 443, 8080, 8443})
"""Other ports are reached only where an opening names the host or the network."""

_DENIED: tuple[_Network, ...] = tuple(
    ip_network(text)
    for text in (
        # ``ipaddress.is_global`` is no substitute: it passes multicast, NAT64, 6to4, site-local
        # and IPv4-compatible addresses, each of which can lead home.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",
        *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32"),
        *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
_METADATA: tuple[_Network, ...] = tuple(
    ip_network(text)
    for text in (
        # Cloud metadata services hand out credentials to whoever asks from inside.
        *("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
        *("fe80::/10", "fd00:ec2::/32"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f\\]")


class InvalidDestinationError(ValueError):
    """The URL can never be delivered to. The text names the fault and never quotes the URL."""


class AddressBlockedError(Exception):
    """The host leads to an address that deliveries may not reach. The text is for the operator."""


def parse_url(text: str, *, https_only: bool = False) -> URL:
    """Return the URL as the sender will use it; raise InvalidDestinationError when it is not fit."""
    if len(text) > MAX_URL_LENGTH:
        raise InvalidDestinationError(f"the URL is longer than {MAX_URL_LENGTH} characters")
    # A blank or a backslash is where one parser sees another host than the next one.
    if _FORBIDDEN_IN_URL.search(text):
        raise InvalidDestinationError(
            "the URL contains a blank, a control character or a backslash"
        )
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise InvalidDestinationError("the URL cannot be parsed") from error
    if url.scheme not in ({"https"} if https_only else {"http", "https"}):
        raise InvalidDestinationError(
            f"the URL must start with {'https' if https_only else 'http(s)'}://"
        )
    if not url.raw_host:
        raise InvalidDestinationError("the URL has no host")
    if "@" in url.raw_authority:
        raise InvalidDestinationError("the URL carries credentials")
    if not port:
        raise InvalidDestinationError("the URL has no usable port")
    return url


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """One entry of the operator's list: a network or a host, at one port or at all."""

    network: _Network | None = None
    host: str = ""
    port: int | None = None

    def admits(self, address: _Address, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.host == host
        return address in self.network

    def may_admit(self, host: str, port: int) -> bool:
        """Whether a host's name could lead through here: it is named, or its network might be."""
        fits = self.port in (None, port)
        return fits and (self.network is not None or self.host == host)

    def names(self, address: _Address, port: int) -> bool:
        """Whether this entry is exactly that one address."""
        is_single = self.network is not None and self.network.num_addresses == 1
        return is_single and self.admits(address, "", port)


@dataclass(frozen=True, kw_only=True)
class AddressGuard:
    """Judges addresses; immutable, shared by all senders of a process."""

    openings: tuple[_Opening, ...] = ()
    ports: frozenset[int] | None = USUAL_PORTS
    """What may be reached beyond the openings; None: any port."""
    allows_http: bool = True
    """Off: without TLS only what an opening names is reached."""

    @classmethod
    def opening(
        cls,
        entries: Iterable[str],
        *,
        ports: Iterable[int] | None = USUAL_PORTS,
        allows_http: bool = True,
    ) -> AddressGuard:
        """Make a guard that lets through what the entries name.

        An entry is a network (``10.0.0.0/8``), an address, a host (``receiver``), or an address or
        host with a port (``receiver:8080``, ``[::1]:9000``). Metadata and link-local addresses stay
        shut unless an entry is exactly that address. Raises ValueError naming the entry.
        """
        return cls(
            openings=tuple(_parse_opening(entry) for entry in entries),
            ports=None if ports is None else frozenset(ports),
            allows_http=allows_http,
        )

    def check_url(self, text: str) -> URL:
        """Return a URL as it is to be saved; raise InvalidDestinationError when no try could succeed.

        What only the resolver knows is judged at each try. So is a host that is an opened network's.
        """
        url = parse_url(text)
        host, port = _plain_host(url.raw_host or ""), url.port or 0
        try:
            self.judge(host, port, [host], is_encrypted=url.scheme == "https")
        except AddressBlockedError as error:
            raise InvalidDestinationError(str(error)) from error
        except ValueError:  # a name: nothing is known yet of where it leads
            reason = self._closed(port, is_encrypted=url.scheme == "https")
            if reason and not any(opening.may_admit(host, port) for opening in self.openings):
                raise InvalidDestinationError(reason) from None
        return url

    def judge(
        self, host: str, port: int, addresses: Sequence[str], *, is_encrypted: bool = True
    ) -> list[str]:
        """Return the addresses as literals to connect to; raise AddressBlockedError if any is denied.

        All must pass: dropping the bad ones would let a host mix its answers until one sticks.
        """
        name = _plain_host(host)
        judged = [_unmapped(ip_address(address)) for address in addresses]
        for address in judged:
            for form in _forms(address):
                reason = self._refusal(form, name, port, is_encrypted=is_encrypted)
                if reason:
                    raise AddressBlockedError(f"{name} leads to {address}: {reason}")
        return [str(address) for address in judged]

    def _refusal(self, address: _Address, host: str, port: int, *, is_encrypted: bool) -> str:
        """Say why this address is shut, or return an empty string."""
        is_metadata = any(address in network for network in _METADATA)
        if is_metadata and not any(opening.names(address, port) for opening in self.openings):
            return "a metadata or link-local address"
        if any(opening.admits(address, host, port) for opening in self.openings):
            return ""
        if any(address in network for network in _DENIED):
            return "a private or reserved address"
        return self._closed(port, is_encrypted=is_encrypted)

    def _closed(self, port: int, *, is_encrypted: bool) -> str:
        """Say why this port is shut beyond the openings, or return an empty string."""
        if self.ports is not None and port not in self.ports:
            return f"port {port} is not open to deliveries"
        if not is_encrypted and not self.allows_http:
            return "http:// is for networks and hosts that the operator opened; use https://"
        return ""


def _parse_opening(entry: str) -> _Opening:
    text = entry.strip()
    try:
        return _Opening(network=ip_network(text))
    except ValueError:
        if "/" in text:
            raise ValueError(f"{entry!r} is not a network") from None
    try:
        url = URL(f"http://{text}")
        host, port = _plain_host(url.raw_host or ""), url.explicit_port
    except ValueError:
        host, port = "", None
    if "@" in text or "?" in text or "#" in text:
        raise ValueError(f"{entry!r} is not a host")
    try:
        return _Opening(network=ip_network(host), port=port)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{entry!r} is not a network, an address or a host") from None
    return _Opening(host=host, port=port)


def _plain_host(host: str) -> str:
    """``Receiver.`` and ``receiver`` are one name."""
    return host.rstrip(".").lower()


def _unmapped(address: _Address) -> _Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _forms(address: _Address) -> list[_Address]:
    """The address, and the IPv4 address that a gateway would unwrap from it: both are judged."""
    forms: list[_Address] = [address]
    if isinstance(address, IPv6Address):
        if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
            forms.append(IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour:
            forms.append(address.sixtofour)
    return forms
