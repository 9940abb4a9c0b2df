"""How a webhook connection is opened: through the address guard, or not at all.

``guarded_connector`` returns an aiohttp connector that resolves a host once, lets the guard judge
every address, and connects to the judged literals only, so that a second answer of the DNS cannot
lead elsewhere. The gate stands where each socket is made: hosts written as addresses, which
aiohttp does not resolve, pass through it too. ``explain`` names what went wrong. Only ``webhook``
uses this; proxies are never used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from batching.reach import AddressBlockedError, AddressGuard
from delivery.outcome import Code

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Resolve a host name to all of its addresses; raises OSError."""

_LOOKUP_THREADS = 16
_DNS_CACHE_S = 10
KEEP_ALIVE_S = 4.0
"""Under the 5 s at which common servers close an idle connection: fewer posts into a closing one."""


@dataclass
class Dial:
    """What became of one try's connection; filled in while the try runs."""

    host: str
    port: int
    is_encrypted: bool = True
    address: str = ""
    """The address last connected to, or tried."""
    is_new: bool = False
    """A socket was made for this try; otherwise it used a kept connection."""


current_dial: ContextVar[Dial] = ContextVar("current_dial")
"""Set by the sender around each request; aiohttp opens the connection in the same context."""


class SystemLookup:
    """The system's resolver on threads of its own: slow names must not use up the loop's threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="delivery-dns")

    async def __call__(self, host: str) -> list[str]:
        ask = partial(
            socket.getaddrinfo, host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [str(sockaddr[0]) for *_, sockaddr in infos]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _JudgingResolver(AbstractResolver):
    """Resolves within a deadline and returns only what the guard let through."""

    def __init__(self, guard: AddressGuard, lookup: Lookup, timeout_s: float) -> None:
        self._guard = guard
        self._lookup = lookup
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._lookup(host)
        except TimeoutError:
            text = f"no answer within {self._timeout_s:g} s"
            raise socket.gaierror(socket.EAI_AGAIN, text) from None
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._guard.judge(host, port, addresses)
        ]

    async def close(self) -> None:
        """Nothing is held: the lookup belongs to the sender."""


class _RecordingConnector(aiohttp.TCPConnector):
    """Writes the peer of each connection handed out into the current Dial."""

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport else None
        if peer:
            current_dial.get().address = str(peer[0])
        return connection


def guarded_connector(
    guard: AddressGuard,
    lookup: Lookup,
    *,
    tls: ssl.SSLContext,
    lookup_timeout_s: float,
    limit_per_host: int = 0,
) -> aiohttp.TCPConnector:
    """Return a connector for one event loop; call inside that loop. The session closes it."""

    def make_socket(addr_info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, proto, _, sockaddr = addr_info
        dial = current_dial.get()
        address = str(sockaddr[0])
        # The last gate: nothing that the guard refuses gets a socket, however it came here.
        guard.judge(dial.host, dial.port, [address], is_encrypted=dial.is_encrypted)
        dial.address, dial.is_new = address, True
        return socket.socket(family, kind, proto)

    return _RecordingConnector(
        resolver=_JudgingResolver(guard, lookup, lookup_timeout_s),
        # Concurrent tries at one host share one lookup; what is kept are judged addresses.
        ttl_dns_cache=_DNS_CACHE_S,
        socket_factory=make_socket,
        ssl=tls,
        limit=0,
        limit_per_host=limit_per_host,
        keepalive_timeout=KEEP_ALIVE_S,
    )


def tls_context(ca_bundle: Path | None = None) -> ssl.SSLContext:
    """Return the TLS terms: 1.2 or newer, certificate and host name verified; a bundle adds CAs.

    Reading the authorities takes longer than many a run of a sender, so the terms are kept until the bundle changes.
    """
    return _tls_context(ca_bundle, ca_bundle.stat().st_mtime_ns if ca_bundle else 0)


@lru_cache(maxsize=4)
def _tls_context(ca_bundle: Path | None, _changed_at_ns: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_bundle is not None:
        context.load_verify_locations(ca_bundle)
    return context


FAILURES = (aiohttp.ClientError, AddressBlockedError, OSError)
"""What a request may raise through no fault of ours; TimeoutError is an OSError."""


def explain(error: Exception, host: str) -> tuple[Code, str]:
    """Name the failure and say it in one line.

    aiohttp's own texts quote the whole URL, query and all, so none of them is passed on.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    if isinstance(error, AddressBlockedError):
        return Code.BLOCKED_ADDRESS, str(error)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Code.TIMEOUT, f"no connection to {host} in time"
    if isinstance(error, TimeoutError):
        return Code.TIMEOUT, f"no answer from {host} in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Code.DNS_ERROR, f"{host} could not be resolved: {error.os_error.strerror}"
    if isinstance(cause, ssl.SSLError):
        return Code.TLS_ERROR, _tls_text(cause)
    if isinstance(error, aiohttp.ClientConnectorError):
        if error.os_error.errno is None:
            return Code.TLS_ERROR, f"{host} hung up during the TLS handshake"
        return Code.CONNECTION_ERROR, f"no connection to {host}: {error.os_error.strerror}"
    return _explain_talk(error, host)


def _explain_talk(error: Exception, host: str) -> tuple[Code, str]:
    """The failures after the connection stood."""
    if isinstance(error, aiohttp.InvalidURL):
        return Code.INVALID_DESTINATION, "the URL cannot be used"
    if isinstance(error, aiohttp.ClientResponseError):
        return Code.INVALID_ANSWER, "the answer was not HTTP, or its headers were too large"
    return Code.CONNECTION_ERROR, f"{host} closed the connection without an answer"


def _tls_text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {error.verify_message}"
    return f"TLS failed: {error.reason or 'no reason given'}"
