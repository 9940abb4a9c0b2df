"""A real HTTP server for the cases that a patched client cannot show: drips, cuts and big bodies."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def _handler(answer, gone: threading.Event, *, raw: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            self.gone = gone
            try:
                answer(self) if raw else super().handle()
            except OSError:
                self.close_connection = True

        def _answer(self) -> None:
            answer(self)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # http.server's names

        def log_message(self, *_) -> None:
            """Keep quiet."""

    return Handler


@pytest.fixture
def serve():
    """Start a server whose every request is answered by the given function; returns its URL.

    The function gets the handler: ``path``, ``headers``, ``rfile``, ``wfile`` and ``gone``, an event
    that is set when the test is over. With ``raw`` it is called before anything is read.
    """
    servers = []
    gone = threading.Event()

    def start(answer, *, tls=None, raw=False) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer, gone, raw=raw))
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/v1"

    yield start
    gone.set()
    for server in servers:
        server.shutdown()
        server.server_close()
