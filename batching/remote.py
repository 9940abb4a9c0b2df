"""A running server, as a program of ours on any computer sees it: its HTTP API and nothing else.

The commands `submit`, `status` and `results` call it. Decides how patient a client is: what can be asked again
(no answer, 429, 503, a first call still under way) is asked again, by the server's own Retry-After, until PATIENCE_S
are over. Knows neither Django nor the database.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import requests

PATIENCE_S: Final = 120.0
_CONNECT_S, _READ_S = 10, 120
_LATER = frozenset({409, 429, 502, 503, 504})
_PIECE = 256 * 1024


class Trouble(Exception):
    """The server can't be asked, or says no; the text is for the person at the terminal."""


class Server:
    """One server and the key that opens it."""

    def __init__(self, url: str, key: str, *, patience_s: float = PATIENCE_S) -> None:
        self.url = url.rstrip("/")
        self._patience_s = patience_s
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc must not replace the key
        self._session.headers["Authorization"] = f"Bearer {key}"

    def send(self, lines: bytes, *, submission: str, name: str) -> dict[str, Any]:
        """Upload NDJSON as part of a submission (empty: a new one); ``name`` makes a repeat the same call.

        Returns `BulkTaken` as the API answers it.
        """
        query = {"submission": submission} if submission else {}
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": name}
        path = "/api/requests/bulk"
        with self._ask("POST", path, params=query, data=lines, headers=headers) as answer:
            return _json(answer)

    def submission(self, key: str) -> dict[str, Any]:
        """Return a submission and how far it is."""
        with self._ask("GET", f"/api/submissions/{quote(key, safe='')}") as answer:
            return _json(answer)

    def submissions(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest submissions."""
        with self._ask("GET", "/api/submissions", params={"limit": str(limit)}) as answer:
            found: list[dict[str, Any]] = _json(answer)["data"]
            return found

    @contextmanager
    def results(self, key: str, cursor: str) -> Iterator[Results]:
        """Open the results of a submission behind ``cursor``; read them to their end before going on."""
        path, query = f"/api/submissions/{quote(key, safe='')}/results", {"format": "ndjson"}
        if cursor:
            query["cursor"] = cursor
        with self._ask("GET", path, params=query, stream=True) as answer:
            yield Results(answer)

    @contextmanager
    def _ask(self, method: str, path: str, **how: Any) -> Iterator[requests.Response]:
        """Ask until there is an answer that counts. Raises Trouble."""
        until = time.monotonic() + self._patience_s
        tries = 0
        while True:
            tries += 1
            answer, why = self._once(method, path, how)
            if answer is not None and answer.ok:
                break
            wait_s = _wait_s(answer, tries)
            if wait_s is None or time.monotonic() + wait_s > until:
                raise Trouble(why)
            time.sleep(wait_s)
        try:
            with answer:
                yield answer
        except requests.RequestException as problem:
            raise Trouble(f"{self.url} broke off: {problem}") from problem

    def _once(
        self, method: str, path: str, how: Mapping[str, Any]
    ) -> tuple[requests.Response | None, str]:
        try:
            answer = self._session.request(
                method,
                f"{self.url}{path}",
                timeout=(_CONNECT_S, _READ_S),
                allow_redirects=False,
                **how,
            )
        except (requests.ConnectionError, requests.Timeout) as problem:
            return None, f"{self.url} does not answer: {type(problem).__name__}"
        except requests.RequestException as problem:
            raise Trouble(f"{self.url} can't be asked: {problem}") from problem
        return answer, "" if answer.ok else _told(answer)


class Results:
    """Results that are being read."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    @property
    def cursor(self) -> str:
        """Where to go on, once all of this was read."""
        return self._answer.headers.get("X-Next-Cursor", "")

    @property
    def is_complete(self) -> bool:
        """True when nothing comes behind this."""
        return self._answer.headers.get("X-Complete") == "true"

    def pieces(self) -> Iterator[bytes]:
        """Yield the lines as bytes, in pieces."""
        yield from self._answer.iter_content(_PIECE)


def _wait_s(answer: requests.Response | None, tries: int) -> float | None:
    """Return how long to wait before asking again; None when that is no use."""
    backoff_s = min(0.5 * 2.0**tries, 15.0)
    if answer is None:
        return backoff_s
    if answer.status_code not in _LATER:
        return None
    given = answer.headers.get("Retry-After", "")
    if answer.status_code == 409 and not given:
        return None
    return float(given) if given.isdecimal() else backoff_s


def _told(answer: requests.Response) -> str:
    """Return what the server said, in one line."""
    try:
        error = answer.json()["errors"][0]
        return f"the server says {answer.status_code} {error['code']}: {error['detail']}"
    except (ValueError, LookupError, TypeError):
        return f"the server says {answer.status_code}"


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        found: dict[str, Any] = answer.json()
    except ValueError as problem:
        raise Trouble(
            "the server answered something that is not JSON; is the URL right?"
        ) from problem
    return found
