"""Send one result to one webhook, signed by Standard Webhooks, and say how it ended.

``dispatch`` keeps one WebhookSender per event loop and calls ``send`` for many results at a time;
``retry`` reads the Outcome. The sender follows no redirect, unpacks no compression, keeps no cookie,
obeys no proxy variable, trusts no address that the guard has not judged, and gives a receiver one
wall-clock deadline for all of it. It never retries by schedule, never touches the database, and
never logs or returns a secret, a URL query or a request body.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from batching.reach import AddressGuard, parse_url
from delivery.dialing import (
    FAILURES,
    Lookup,
    SystemLookup,
    explain,
    guarded_connector,
    tls_context,
)
from delivery.outcome import Code, Message, Outcome
from delivery.posting import Address, Line, Post, header_lines
from delivery.signing import sign, signing_key

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage

logger = logging.getLogger(__name__)

_MOST_KNOWN = 1_000
"""Endpoints that a sender keeps ready."""
_RETRY_AFTER_LIMIT_S = 10**9
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_RESERVED_HEADERS = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type"),
        *("expect", "host", "idempotency-key", "keep-alive", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "x-replay"),
    }
)

_RESERVED_BEGINNINGS = ("webhook-", "x-batcher-")
MAX_HEADERS = 20
MAX_HEADER_BYTES = 8192
"""Names and values of a destination's own headers together."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a webhook goes and what only its owner knows; kept out of reprs and logs."""

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """``whsec_`` signing secrets, the newest first; while one is rotated out, both sign."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The destination's own headers, an Authorization for example."""
    timeout_s: float | None = None
    """Instead of the terms' own."""


@dataclass(frozen=True, kw_only=True)
class WebhookTerms:
    """What the sender grants every receiver."""

    timeout_s: float = 15.0
    """From the first look at the DNS to the last byte of the answer, all in all."""
    connect_timeout_s: float = 10.0
    max_answer_bytes: int = 8192
    """How much of an answer is kept in the Outcome."""
    https_only: bool = False
    ca_bundle: Path | None = None
    """Further certificate authorities, beside the system's."""
    user_agent: str = "batcher"
    limit_per_host: int = 0
    """Connections to one host and port; 0 leaves the number in flight to the caller."""


def check_headers(headers: Headers) -> None:
    """Raise ValueError for headers that a destination may not set; asked at save and at each try."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} headers of its own are sent")
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise ValueError(f"headers of its own have at most {MAX_HEADER_BYTES:,} bytes together")
    seen = set[str]()
    for name, value in headers:
        _check_header(name, value)
        if name.lower() in seen:
            raise ValueError(f"the header {name.lower()} is given twice")
        seen.add(name.lower())


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("a header's name has characters that no header name may have")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_BEGINNINGS):
        raise ValueError(f"the header {name.lower()} is set by the sender")
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"the value of {name.lower()} is not printable ASCII")


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, 0 or more; None if it says nothing."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else float(_RETRY_AFTER_LIMIT_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date that names no zone is UTC, as every HTTP date is.
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


class WebhookSender:
    """Sends webhooks from one event loop over kept connections: ``async with`` it, then ``send``."""

    def __init__(
        self, guard: AddressGuard, terms: WebhookTerms | None = None, lookup: Lookup | None = None
    ) -> None:
        self._guard = guard
        self._terms = terms or WebhookTerms()
        self._tls = tls_context(self._terms.ca_bundle)
        self._system_lookup = SystemLookup()
        self._lookup = lookup or self._system_lookup
        self._connector: aiohttp.TCPConnector | None = None
        self._timeout = aiohttp.ClientTimeout(
            sock_connect=self._terms.connect_timeout_s, ceil_threshold=self._terms.timeout_s + 1
        )
        self._known: dict[Endpoint, _Ready] = {}

    async def __aenter__(self) -> Self:
        self._connector = guarded_connector(
            self._guard,
            self._lookup,
            tls=self._tls,
            lookup_timeout_s=self._terms.connect_timeout_s,
            limit_per_host=self._terms.limit_per_host,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._known.clear()
        if self._connector is not None:
            await self._connector.close()
        self._system_lookup.close()

    @contextmanager
    def line(self) -> Iterator[Line]:
        """Keep what posts that one task makes one after another have in common; for ``send``."""
        if self._connector is None:
            raise RuntimeError("the sender is used outside its async with")
        line = Line(self._connector, self._timeout)
        try:
            yield line
        finally:
            line.close()

    async def send(
        self, endpoint: Endpoint, message: Message, *, now: datetime, line: Line | None = None
    ) -> Outcome:
        """Post the message once and return how it ended; a receiver's fault raises nothing.

        ``now`` becomes the signed ``webhook-timestamp`` and the base of a Retry-After date.
        """
        if line is None:
            with self.line() as line:
                return await self.send(endpoint, message, now=now, line=line)
        started = time.monotonic()
        try:
            ready = self._ready(endpoint)
            head, signatures = _own_head(ready, message, now)
        except ValueError as error:
            return Outcome(
                code=Code.INVALID_DESTINATION,
                detail=str(error),
                error=type(error).__name__,
                started_at=now,
            )
        return await self._run(
            ready, Post(ready.address, head, message.body), line, signatures, now, started
        )

    def _ready(self, endpoint: Endpoint) -> _Ready:
        """Check an endpoint and make it ready, once; raise ValueError for one that is not fit."""
        known = self._known.get(endpoint)
        if known is None:
            url = parse_url(endpoint.url, https_only=self._terms.https_only)
            check_headers(endpoint.headers)
            known = _Ready(
                address=Address(url, _lasting_headers(endpoint, self._terms.user_agent)),
                keys=tuple(signing_key(secret) for secret in endpoint.secrets),
                private=(*(value for _, value in endpoint.headers), url.raw_query_string),
                timeout_s=endpoint.timeout_s or self._terms.timeout_s,
            )
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[endpoint] = known
        return known

    async def _run(
        self,
        ready: _Ready,
        post: Post,
        line: Line,
        signatures: Sequence[str],
        now: datetime,
        started: float,
    ) -> Outcome:
        url = ready.address.url
        host = url.raw_host or ""
        code, detail, failure = Code.DELIVERED, "", ""
        try:
            with line.within(ready.timeout_s):
                await _post(post, line)
        except FAILURES as error:
            if post.heard is None:
                code, detail = explain(error, host)
                failure = type(error).__name__
        if post.heard is not None:
            code, detail = _judge(post.heard, url)
        return Outcome(
            code=code,
            status=post.heard.code if post.heard else None,
            detail=detail,
            answer=_redacted(bytes(post.answer), [*signatures, *ready.private])[
                : self._terms.max_answer_bytes
            ],
            address=line.dial.address,
            started_at=now,
            duration_s=time.monotonic() - started,
            error=failure,
            retry_after_s=_retry_after(post.heard, host, now) if post.heard else None,
        )


async def _post(post: Post, line: Line) -> None:
    """Post, and once more if a kept connection turned out to be closed by its other end.

    That race is nobody's fault and no attempt should be spent on it. The receiver knows a copy
    by its webhook-id.
    """
    try:
        await post.run(line)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
        if line.dial.is_new or isinstance(error, aiohttp.ClientConnectorError):
            raise
        await post.run(line)


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """An endpoint that was checked, with all that its posts have in common."""

    address: Address
    keys: tuple[bytes, ...] = field(repr=False)
    """To sign with."""
    private: tuple[str, ...] = field(repr=False)
    """What must not come back in a stored answer when a receiver echoes its request."""
    timeout_s: float


def _lasting_headers(endpoint: Endpoint, user_agent: str) -> list[tuple[str, str]]:
    """Return the headers that all posts to the endpoint have; its own come in place of the usual ones."""
    own = {name.lower() for name, _ in endpoint.headers}
    usual = [("user-agent", user_agent), ("accept", "*/*")]
    return [
        *(header for header in usual if header[0] not in own),
        *endpoint.headers,
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
    ]


def _own_head(ready: _Ready, message: Message, now: datetime) -> tuple[bytes, list[str]]:
    """Return the header lines of this try alone, and its signatures."""
    at = int(now.timestamp())
    headers = [
        *((name, _visible(value)) for name, value in message.headers),
        ("idempotency-key", message.id),
        ("webhook-id", message.id),
        ("webhook-timestamp", str(at)),
    ]
    signatures = [sign(key, message.id, at, message.body) for key in ready.keys]
    if signatures:
        headers.append(("webhook-signature", " ".join(signatures)))
    return header_lines(headers), signatures


def _visible(value: str) -> str:
    """A header value: as it is if printable ASCII, else percent-encoded (a client's custom_id)."""
    if _HEADER_VALUE.fullmatch(value):
        return value
    return quote(value, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~", errors="surrogatepass")


def _judge(heard: RawResponseMessage, url: URL) -> tuple[Code, str]:
    status = heard.code
    if 200 <= status < 300:
        return Code.DELIVERED, ""
    if 300 <= status < 400:
        return Code.REDIRECT, f"{status} to {_location_host(heard, url)}; not followed"
    reason = "".join(c for c in heard.reason or "" if c.isprintable())[:100]
    said = f"{status} {reason}".strip()
    if status == 410:
        return Code.GONE, f"{said}: the receiver wants no more"
    return Code.HTTP_STATUS, said


def _location_host(heard: RawResponseMessage, url: URL) -> str:
    try:
        target = url.join(URL(heard.headers.get("location", "")))
        return (target.raw_host or "no host")[:253]
    except ValueError:
        return "a location that cannot be parsed"


def _retry_after(heard: RawResponseMessage, host: str, now: datetime) -> float | None:
    if heard.code < 300:
        return None
    value = heard.headers.get("retry-after")
    if value is None:
        return None
    retry_after_s = parse_retry_after(value, now)
    if retry_after_s is None:
        logger.info("retry-after not understood", extra={"host": host})
    return retry_after_s


def _redacted(answer: bytes, private: Iterable[str]) -> bytes:
    for text in private:
        if len(text) > 3:
            answer = answer.replace(text.encode(), b"[redacted]")
    return answer
