"""A client's own web server: takes results on a real socket, keeps them, and answers as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered to one call; ``hangs``: nothing, until the receiver is closed."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False


class Receiver:
    """Listens on a free port of this computer; answers 200 wherever nothing else was asked for."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._scripts: dict[str, list[Reply]] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str = "/results") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def answer(self, path: str, *replies: Reply) -> None:
        """Answer calls to ``path`` with these in turn; the last one stays."""
        with self._changed:
            self._scripts[path] = list(replies)

    def bodies(self, path: str | None = None) -> list[Any]:
        """Return what came as JSON, in its order."""
        return [call.json() for call in self.calls if path in (None, call.path)]

    def custom_ids(self, path: str | None = None) -> list[str]:
        return sorted(body["custom_id"] for body in self.bodies(path))

    def by_id(self) -> dict[str, Any]:
        """Return what came by the client's own id; fails when one came twice."""
        found = {body["custom_id"]: body for body in self.bodies()}
        assert len(found) == len(self.calls), f"came twice: {self.custom_ids()}"
        return found

    def wait_for(self, count: int, *, timeout_s: float = 20) -> None:
        """Return once this many calls came."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.calls) >= count, timeout_s)
        assert came, f"{len(self.calls)} of {count} calls within {timeout_s} s"

    def take(self, call: Call) -> Reply:
        """Keep a call and return what is to be answered."""
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
            script = self._scripts.get(call.path, [Reply()])
            return script.pop(0) if len(script) > 1 else script[0]

    def hang(self) -> None:
        self._closed.wait(60)

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join(timeout=10)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(method=self.command, path=self.path, headers=headers, body=body)
        reply = self.server.receiver.take(call)
        if reply.hangs:
            self.close_connection = True
            self.server.receiver.hang()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_HEAD = _take  # noqa: N815  # http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing: what came is kept in ``calls``."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def refusing_url() -> str:
    """Return a URL on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/gone"
