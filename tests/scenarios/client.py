"""A client of Batcher: speaks HTTP with an API key, and knows nothing of what is behind it."""

from __future__ import annotations

import json
from typing import Any, Self

import requests

MINI = "gpt-4o-mini"


def new_request(
    custom_id: str,
    text: str = "Hi",
    *,
    to: str | dict[str, str] | None = None,
    model: str = MINI,
    **changes: Any,
) -> dict[str, Any]:
    """Return a request that goes at the next tick; ``to``: a webhook's URL, or a delivery_config."""
    delivery = {"type": "webhook", "webhook_url": to} if isinstance(to, str) else to
    return {
        "custom_id": custom_id,
        "url": "/v1/responses",
        "method": "POST",
        "body": {"model": model, "input": text},
        "delivery_config": delivery or {"type": "none"},
        "max_wait_s": 0,
        **changes,
    }


class Client:
    """One API key at one Batcher."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self.key = url, key
        self._session = requests.Session()
        self._session.headers["authorization"] = f"Bearer {key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def call(self, method: str, path: str, **how: Any) -> requests.Response:
        return self._session.request(method, self._url + path, timeout=30, **how)

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of something that is there."""
        answer = self.call("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> requests.Response:
        return self.call("POST", path, json=body)

    def send(self, custom_id: str, text: str = "Hi", **changes: Any) -> requests.Response:
        """Post one request."""
        return self.post("/api/requests", new_request(custom_id, text, **changes))

    def taken(self, custom_id: str, text: str = "Hi", **changes: Any) -> dict[str, Any]:
        """Post one request that must be taken, and return the answer."""
        answer = self.send(custom_id, text, **changes)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def send_bulk(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Upload requests that must all be taken."""
        answer = self.call("POST", "/api/requests/bulk", data=ndjson(lines))
        assert answer.status_code == 202, answer.text
        taken = answer.json()
        assert taken["accepted"] == len(lines), taken
        return taken

    def request(self, custom_id: str) -> dict[str, Any]:
        return self.get(f"/api/requests/{custom_id}")

    def requests(self, **filters: Any) -> list[dict[str, Any]]:
        return self._all("/api/requests", filters)

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self.get(f"/api/batches/{batch_id}")

    def batches(self, **filters: Any) -> list[dict[str, Any]]:
        """Return every batch that holds a request of ours, whole, oldest first."""
        return [self.batch(row["id"]) for row in reversed(self._all("/api/batches", filters))]

    def batch_of(self, custom_id: str) -> dict[str, Any]:
        return self.batch(self.request(custom_id)["batch"])

    def only_batch(self) -> dict[str, Any]:
        (batch,) = self.batches()
        return batch

    def states(self) -> dict[str, str]:
        """Return the state of each request."""
        return {row["custom_id"]: row["state"] for row in self.requests()}

    def results(self, wait_s: int = 10) -> list[dict[str, Any]]:
        """Pull what there is; wait for the first one."""
        answer = self.call("GET", "/api/results", params={"wait": wait_s})
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.content.split(b"\n") if line]

    def _all(self, path: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
        rows, cursor = [], None
        while True:
            page = self.get(path, limit=100, **filters, **({"cursor": cursor} if cursor else {}))
            rows += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return rows


def ndjson(lines: list[dict[str, Any]]) -> bytes:
    """Return requests as an upload."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def path_of(row: dict[str, Any]) -> list[str]:
    """Return the states that a request or a batch went through."""
    return [step["to_state"] for step in row["transitions"]]


def first_error(answer: requests.Response) -> dict[str, Any]:
    """Return the first error of a call that was refused."""
    return answer.json()["errors"][0]
