"""A TCP proxy before a broker whose connections a test can cut, and whose confirms it can lose."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

_ACK = bytes([0, 60, 0, 80])
"""basic.ack in a frame (AMQP 0-9-1, class 60, method 80)."""


class Proxy:
    """Forwards to the broker of ``url``; `url` of its own leads through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname, parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        port = self._listener.getsockname()[1]
        self.url = f"amqp://{login}@127.0.0.1:{port}{parts.path}"
        self.opened = 0
        self.loses_confirms = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        cut, self._open = self._open, []
        for end in cut:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    broker = socket.create_connection(self._broker)
                except OSError:  # it is away; so are we, to this one
                    client.close()
                    continue
                self.opened += 1
                self._open += [client, broker]
                threading.Thread(target=_copy, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._answer, args=(broker, client), daemon=True).start()

    def _answer(self, broker: socket.socket, client: socket.socket) -> None:
        _copy(broker, client, is_lost=lambda piece: self.loses_confirms and _ACK in piece)


def _copy(
    source: socket.socket,
    target: socket.socket,
    is_lost: Callable[[bytes], bool] = lambda _piece: False,
) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            if not is_lost(piece):
                target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()
