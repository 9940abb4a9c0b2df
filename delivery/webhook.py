"""Send one result to one webhook, signed by Standard Webhooks, and say how it ended.

``dispatch`` keeps one WebhookSender per event loop and calls ``send`` for many results at a time;
``retry`` reads the Outcome. The sender follows no redirect, unpacks no compression, keeps no cookie,
obeys no proxy variable, trusts no address that the guard has not judged, and gives a receiver one
wall-clock deadline for all of it. It never retries by schedule, never touches the database, and
never logs or returns a secret, a URL query or a request body.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from batching.reach import AddressGuard, parse_url
from delivery.dialing import (
    FAILURES,
    Dial,
    Lookup,
    SystemLookup,
    current_dial,
    explain,
    guarded_connector,
    tls_context,
)
from delivery.outcome import Code, Message, Outcome
from delivery.signing import sign

logger = logging.getLogger(__name__)

_READ_LIMIT = 64 * 1024
"""An answer up to this size is read to its end, so that the connection can be used again."""
_MAX_ANSWER_HEADERS = 100
_MAX_ANSWER_LINE = 8190
_WHOLE_BODY_LIMIT = 1024 * 1024
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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        terms = self._terms
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(
                self._guard,
                self._lookup,
                tls=self._tls,
                lookup_timeout_s=terms.connect_timeout_s,
                limit_per_host=terms.limit_per_host,
            ),
            timeout=aiohttp.ClientTimeout(
                sock_connect=terms.connect_timeout_s, ceil_threshold=terms.timeout_s + 1
            ),
            headers={"user-agent": terms.user_agent, "accept": "*/*"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_headers=_MAX_ANSWER_HEADERS,
            max_line_size=_MAX_ANSWER_LINE,
            max_field_size=_MAX_ANSWER_LINE,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()
        self._system_lookup.close()

    async def send(self, endpoint: Endpoint, message: Message, *, now: datetime) -> Outcome:
        """Post the message once and return how it ended; a receiver's fault raises nothing.

        ``now`` becomes the signed ``webhook-timestamp`` and the base of a Retry-After date.
        """
        started = time.monotonic()
        try:
            url = parse_url(endpoint.url, https_only=self._terms.https_only)
            check_headers(endpoint.headers)
            signatures = [sign(s, message.id, now, message.body) for s in endpoint.secrets]
        except ValueError as error:
            return Outcome(
                code=Code.INVALID_DESTINATION,
                detail=str(error),
                error=type(error).__name__,
                started_at=now,
            )
        headers = _headers(endpoint, message, signatures, now)
        private = [*signatures, *(value for _, value in endpoint.headers), url.raw_query_string]
        attempt = _Attempt(
            url=url,
            headers=headers,
            body=message.body,
            now=now,
            private=private,
            timeout_s=endpoint.timeout_s,
        )
        return await self._run(attempt, started)

    async def _run(self, attempt: _Attempt, started: float) -> Outcome:
        timeout_s = attempt.timeout_s or self._terms.timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        host, port = attempt.url.raw_host or "", attempt.url.port or 0
        dial = Dial(host=host, port=port, is_encrypted=attempt.url.scheme == "https")
        token = current_dial.set(dial)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._post(attempt, dial)
        except FAILURES as error:
            code, detail = explain(error, host)
            status, answer, retry_after_s = None, b"", None
            failure = type(error).__name__
        else:
            answer = await _read(response, deadline)
            answer = _redacted(answer, attempt.private)[: self._terms.max_answer_bytes]
            status = response.status
            code, detail = _judge(response)
            retry_after_s = _retry_after(response, attempt.now)
            failure = ""
        finally:
            current_dial.reset(token)
        return Outcome(
            code=code,
            status=status,
            detail=detail,
            answer=answer,
            address=dial.address,
            started_at=attempt.now,
            duration_s=time.monotonic() - started,
            error=failure,
            retry_after_s=retry_after_s,
        )

    async def _post(self, attempt: _Attempt, dial: Dial) -> aiohttp.ClientResponse:
        """Post, and once more if a kept connection turned out to be closed by its other end.

        That race is nobody's fault and no attempt should be spent on it. The receiver knows a copy
        by its webhook-id.
        """
        try:
            return await self._post_once(attempt)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
            if dial.is_new or isinstance(error, aiohttp.ClientConnectorError):
                raise
            return await self._post_once(attempt)

    async def _post_once(self, attempt: _Attempt) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the sender is used outside its async with")
        # Beyond 1 MB aiohttp wants a file, which it writes in pieces.
        is_large = len(attempt.body) > _WHOLE_BODY_LIMIT
        return await self._session.post(
            attempt.url,
            data=io.BytesIO(attempt.body) if is_large else attempt.body,
            headers=attempt.headers,
            allow_redirects=False,
        )


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One try, made ready."""

    url: URL
    headers: list[tuple[str, str]]
    body: bytes
    now: datetime
    timeout_s: float | None
    private: list[str]
    """What must not come back in a stored answer when a receiver echoes its request."""


def _headers(
    endpoint: Endpoint, message: Message, signatures: list[str], now: datetime
) -> list[tuple[str, str]]:
    headers = [
        *endpoint.headers,
        *((name, _visible(value)) for name, value in message.headers),
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
        ("idempotency-key", message.id),
        ("webhook-id", message.id),
        ("webhook-timestamp", str(int(now.timestamp()))),
    ]
    if signatures:
        headers.append(("webhook-signature", " ".join(signatures)))
    return headers


def _visible(value: str) -> str:
    """A header value: as it is if printable ASCII, else percent-encoded (a client's custom_id)."""
    if _HEADER_VALUE.fullmatch(value):
        return value
    return quote(value, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~", errors="surrogatepass")


def _judge(response: aiohttp.ClientResponse) -> tuple[Code, str]:
    status = response.status
    if 200 <= status < 300:
        return Code.DELIVERED, ""
    if 300 <= status < 400:
        return Code.REDIRECT, f"{status} to {_location_host(response)}; not followed"
    reason = "".join(c for c in response.reason or "" if c.isprintable())[:100]
    said = f"{status} {reason}".strip()
    if status == 410:
        return Code.GONE, f"{said}: the receiver wants no more"
    return Code.HTTP_STATUS, said


def _location_host(response: aiohttp.ClientResponse) -> str:
    try:
        target = response.url.join(URL(response.headers.get("location", "")))
        return (target.raw_host or "no host")[:253]
    except ValueError:
        return "a location that cannot be parsed"


def _retry_after(response: aiohttp.ClientResponse, now: datetime) -> float | None:
    value = response.headers.get("retry-after")
    if value is None or response.status < 300:
        return None
    retry_after_s = parse_retry_after(value, now)
    if retry_after_s is None:
        logger.info("retry-after not understood", extra={"host": response.url.raw_host})
    return retry_after_s


async def _read(response: aiohttp.ClientResponse, deadline: float) -> bytes:
    """Read the start of the answer. The status has decided already: an answer cut short is no fault.

    A connection whose answer was not read to its end is closed, never used again.
    """
    answer = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            while len(answer) < _READ_LIMIT and (chunk := await response.content.readany()):
                answer += chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        logger.debug("answer cut short", extra={"error": type(error).__name__})
    finally:
        response.close()
    return bytes(answer)


def _redacted(answer: bytes, private: list[str]) -> bytes:
    for text in private:
        if len(text) > 3:
            answer = answer.replace(text.encode(), b"[redacted]")
    return answer
