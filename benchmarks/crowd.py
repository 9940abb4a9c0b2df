"""What the crowded drive needs of the panel and of the sandbox's control calls: plain HTTP, nothing of ours."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from typing import Any

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Panel:
    """The panel, as the user admin would use it."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url.rstrip("/")
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._browser = urllib.request.build_opener(cookies)
        self._send("/admin/login/", username="admin", password=password, next="/admin/")

    def limit_tokens(self, model: str, tokens: int) -> None:
        """Say how many tokens of a model may be enqueued; again, when it was said before."""
        page = self._get("/admin/batching/tokenlimit/")
        known = re.search(rf"/admin/batching/tokenlimit/(\d+)/change/[^>]*>\s*{model}\s*<", page)
        path = f"{known[1]}/change/" if known else "add/"
        self._send(
            f"/admin/batching/tokenlimit/{path}", prefix=model, tokens=str(tokens), account=""
        )

    def _get(self, path: str) -> str:
        with self._browser.open(self._url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def _send(self, path: str, **fields: str) -> None:
        """Fill in a form and send it. Raises SystemExit when it is shown again."""
        token = _TOKEN.search(self._get(path))
        fields["csrfmiddlewaretoken"] = token[1] if token else ""
        request = urllib.request.Request(  # noqa: S310  # the caller's URL
            self._url + path,
            urllib.parse.urlencode(fields).encode(),
            headers={"referer": self._url + path},
        )
        with self._browser.open(request, timeout=60) as answer:
            if urllib.parse.urlsplit(answer.url).path == path:
                raise SystemExit(f"{path} was not taken; is the password right?")


class Ended:
    """Pulls the results of requests that have ended, from the first on."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key, self._cursor = f"{url.rstrip('/')}/api/results", key, ""

    def more(self) -> list[dict[str, Any]]:
        """Return the next results; none when all have been read."""
        query = urllib.parse.urlencode({"limit": 1000, "cursor": self._cursor})
        request = urllib.request.Request(  # noqa: S310  # the caller's URL
            f"{self._url}?{query}", headers={"authorization": f"Bearer {self._key}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            results = [json.loads(line) for line in answer.read().splitlines()]
            self._cursor = answer.headers.get("x-next-cursor") or self._cursor
        return results


class Sandbox:
    """The control calls of the sandbox."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def run_at(self, speed: float) -> None:
        """Let its clock run so many times as fast."""
        self._call("POST", "/sandbox/clock", {"speed": speed})

    def now(self) -> float:
        """Return its time, in seconds."""
        return float(json.loads(self._call("GET", "/sandbox/clock"))["now"])

    def play(self, scenario: dict[str, Any]) -> None:
        """Let this happen from now on."""
        self._call("PUT", "/sandbox/scenario", scenario)

    def stats(self) -> dict[str, Any]:
        """Return what was asked of it."""
        found: dict[str, Any] = json.loads(self._call("GET", "/sandbox/stats"))
        return found

    def histories(self) -> dict[str, list[str]]:
        """Return what became of each line in every batch, by its custom_id, oldest first."""
        told = map(json.loads, self._call("GET", "/sandbox/lines").splitlines())
        return {one["custom_id"]: [o["outcome"] for o in one["outcomes"]] for one in told}

    def _call(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return bytes(answer.read())
