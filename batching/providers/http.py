"""The one place where a provider's HTTP is spoken: one call, one deadline, no second try.

Decides timeouts, sizes and what is trusted: proxies and netrc of the environment are ignored (they
would see or replace the key), redirects are never followed, certificates are always checked, and
answers are read up to a limit. Providers call it; what a failure means is decided in ``faults``.
It never retries, and neither the key nor any body reaches a log or a message.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import requests
from requests_toolbelt import MultipartEncoder
from urllib3.exceptions import HTTPError

from batching.providers import faults, guarding, tolerant
from batching.providers.base import ProviderError, Trouble
from batching.providers.deadline import Deadline, DeadlineAdapter
from batching.providers.faults import Call
from batching.reach import AddressBlockedError

MAX_JSON_BYTES = 16 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 256 * 1024

_BROKEN = (requests.RequestException, HTTPError, EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a call may take. Set leases and task limits above these."""

    connect_s: float = 10.0
    """To reach the server, per address."""
    silence_s: float = 60.0
    """Between two bytes."""
    call_s: float = 60.0
    """A small call, all in all."""
    transfer_s: float = 1800.0
    """An upload or a download, all in all."""
    answer_s: float = 600.0
    """A model's answer, during all of which the server may be silent."""


class _Source(Protocol):
    def read(self, amount: int, /) -> bytes: ...


class Body(Protocol):
    """A body that is read while it is sent; ``len`` is its size in bytes."""

    @property
    def len(self) -> int: ...

    def read(self, amount: int = -1, /) -> bytes: ...


class Http:
    """Calls to one base URL with one set of headers. For one thread at a time.

    Every method raises ProviderError; an OSError of the local disk passes through.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], secret: str, timeouts: Timeouts
    ) -> None:
        self._base_url = _checked_url(base_url)
        self._secret = _checked_secret(secret)
        self._timeouts = timeouts
        self._judge = guarding.present_judge()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {"User-Agent": "batcher", "Accept-Encoding": "identity", **headers}
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, DeadlineAdapter())

    def get(self, path: str, *, params: Mapping[str, str | int] | None = None) -> Any:
        """Read JSON."""
        call = Call(name=f"GET {path}", has_effect=False)
        return self._json(call, self._timeouts.call_s, params=params)

    def post(self, path: str, payload: Mapping[str, Any] | None = None) -> Any:
        """Make a call that has an effect; an ending that proves nothing is Trouble.UNKNOWN."""
        call = Call(name=f"POST {path}", has_effect=True)
        return self._json(call, self._timeouts.call_s, json=payload)

    def put(self, path: str, payload: Mapping[str, Any]) -> Any:
        """Replace something: safe to repeat, so doubt is Trouble.RETRY."""
        call = Call(name=f"PUT {path}", has_effect=False)
        return self._json(call, self._timeouts.call_s, json=payload)

    def post_file(
        self, path: str, source: Path, *, filename: str, fields: Mapping[str, str]
    ) -> Any:
        """Send a file as multipart/form-data, read from disk while it is sent; an effect like post."""
        call = Call(name=f"POST {path}", has_effect=True)
        with source.open("rb") as file:
            form = MultipartEncoder({**fields, "file": (filename, file, "application/jsonl")})
            headers = {"Content-Type": form.content_type}
            return self._json(call, self._timeouts.transfer_s, data=form, headers=headers)

    def post_stream(self, path: str, body: Body) -> Any:
        """Send a long JSON body, read while it is sent; an effect like post."""
        call = Call(name=f"POST {path}", has_effect=True)
        headers = {"Content-Type": "application/json"}
        return self._json(call, self._timeouts.transfer_s, data=body, headers=headers)

    def post_bytes(self, path: str, body: bytes) -> bytes:
        """Ask a model: send JSON as it came and return the answer as it came; an effect like post."""
        call = Call(name=f"POST {path}", has_effect=True)
        headers = {"Content-Type": "application/json"}
        seconds = self._timeouts.answer_s
        with self._answer(call, seconds, silence_s=seconds, data=body, headers=headers) as response:
            answer, is_whole = _read(response, limit=_MAX_ANSWER_BYTES)
            status = response.status_code
        if not is_whole or not _is_json(answer):
            raise faults.unreadable(call, status)
        return answer

    def delete(self, path: str) -> None:
        """Delete something: safe to repeat, so doubt is Trouble.RETRY. The answer is not read."""
        with self._answer(Call(name=f"DELETE {path}", has_effect=False), self._timeouts.call_s):
            pass

    def download(self, path: str, *, into: Path) -> int:
        """Stream a body to ``into`` and return its size; the file appears whole or not at all.

        It is written beside ``into`` as ``*.part`` first, which stays behind only after a crash.
        """
        call = Call(name=f"GET {path}", has_effect=False)
        with tempfile.NamedTemporaryFile(
            dir=into.parent, prefix=f"{into.name}.", suffix=".part", delete=False
        ) as part:
            try:
                with self._answer(call, self._timeouts.transfer_s) as response:
                    for block in _blocks(response):
                        part.write(block)
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(into)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
            return part.tell()

    def _json(self, call: Call, total_s: float, **request: Any) -> Any:
        with self._answer(call, total_s, **request) as response:
            body, is_whole = _read(response, limit=MAX_JSON_BYTES)
        try:
            if is_whole:
                return tolerant.parse(body)
        except ValueError as exc:
            raise faults.unreadable(call, response.status_code) from exc
        raise faults.unreadable(call, response.status_code)

    @contextmanager
    def _answer(
        self, call: Call, total_s: float, *, silence_s: float | None = None, **request: Any
    ) -> Iterator[requests.Response]:
        """Yield a 2xx answer whose body is still to be read; everything else is a ProviderError."""
        method, path = call.name.split(" ", 1)
        silence_s = min(silence_s or self._timeouts.silence_s, total_s)
        with Deadline(total_s) as deadline, guarding.judged_by(self._judge):
            try:
                with self._session.request(
                    method,
                    self._base_url + path,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._timeouts.connect_s, silence_s),
                    **request,
                ) as response:
                    if not 200 <= response.status_code < 300:
                        raise self._refusal(call, response)
                    yield response
            except AddressBlockedError as exc:
                detail = f"the base URL may not be called: {exc}"
                raise ProviderError(detail, trouble=Trouble.CREDENTIALS) from exc
            except _BROKEN as exc:
                raise faults.lost(
                    call, exc, deadline_s=total_s if deadline.has_passed else None
                ) from exc
            # A body that ends with its connection looks whole when it was we who cut it.
            if deadline.has_passed:
                raise faults.lost(call, TimeoutError(), deadline_s=total_s)

    def _refusal(self, call: Call, response: requests.Response) -> ProviderError:
        body, _ = _read(response, limit=_MAX_ERROR_BYTES)
        if self._secret:  # some servers quote the key that they refuse
            body = body.replace(self._secret.encode(), b"[key]")
        return faults.refusal(
            call, response.status_code, headers=response.headers, body=body, now=datetime.now(UTC)
        )


def _read(response: requests.Response, *, limit: int) -> tuple[bytes, bool]:
    """Return at most about ``limit`` bytes of the body, and whether that is all of it."""
    kept = bytearray()
    for block in _blocks(response):
        kept += block
        if len(kept) > limit:
            return bytes(kept[:limit]), False
    return bytes(kept), True


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the decoded body; raises one of _BROKEN when it is cut short.

    We ask for no compression; a server that compresses all the same gets gzip read strictly, as
    urllib3's own decoder takes a truncated stream for a whole one.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise requests.exceptions.ContentDecodingError(f"content encoding {encoding[:20]!r}")
    source: _Source = response.raw
    if "gzip" in encoding:
        source = gzip.GzipFile(fileobj=response.raw, mode="rb")
    while block := source.read(_BLOCK_BYTES):
        yield block
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and response.raw.tell() < int(announced):
        raise requests.exceptions.ContentDecodingError("fewer bytes than announced")


def _is_json(body: bytes) -> bool:
    try:
        tolerant.parse(body)
    except ValueError:
        return False
    return True


def path_of(*parts: str) -> str:
    """Join path segments; ids come from outside and must not leave theirs."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment:
        raise ProviderError(
            "the base URL must be http(s)://host/path without user, query or fragment",
            trouble=Trouble.CREDENTIALS,
        )
    return base_url.rstrip("/")


def _checked_secret(secret: str) -> str:
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise ProviderError(
            "the key has characters that no header can carry", trouble=Trouble.CREDENTIALS
        )
    return secret
