"""A wall clock for HTTP calls: when it strikes, the connection is cut, whatever the server is doing.

Timeouts of HTTP clients measure silence between two bytes, so a server that drips one byte at a
time holds a call for ever. ``Deadline`` shuts the socket from a timer thread instead. Used by
``http`` only; resolving a name is the one step it cannot interrupt, and nothing is sent after one
that took too long.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from contextvars import ContextVar, Token
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from batching.providers import guarding

_running: ContextVar[Deadline | None] = ContextVar("running_deadline", default=None)


class Deadline:
    """Covers the calls made inside its ``with`` block, in the same thread, with one wall clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_passed = False
        self._is_over = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._strike)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._token: Token[Deadline | None] = _running.set(self)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _running.reset(self._token)
        with self._lock:
            self._is_over = True
            self._let_go()

    def hold(self, fileno: int) -> bool:
        """Take note of the socket to cut; False when it is too late to use it.

        The descriptor is duplicated: TLS wrapping and ``Connection: close`` both take the socket
        object away from the connection while the connection itself lives on.
        """
        with self._lock:
            self._let_go()
            self._socket = socket.socket(fileno=os.dup(fileno))
            return not self.has_passed

    def _strike(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self.has_passed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the other side was quicker
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Watched(HTTPConnection):
    """Shows each socket it is about to use to the running deadline."""

    def _new_conn(self) -> socket.socket:
        sock = guarding.opened(self, super()._new_conn)
        try:
            self._show(sock)
        except ConnectTimeoutError:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept alive from an earlier call, or connected for TLS
            self._show(self.sock)
        super().request(*args, **kwargs)

    def _show(self, sock: socket.socket) -> None:
        deadline = _running.get()
        if deadline is not None and not deadline.hold(sock.fileno()):
            raise ConnectTimeoutError(self, "the deadline passed before anything was sent")


class _WatchedTLS(_Watched, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class DeadlineAdapter(HTTPAdapter):
    """A requests adapter whose connections obey the running ``Deadline``. It never retries."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # 128 kB instead of 16 kB at a time: uploads are files of up to 200 MB.
        super().init_poolmanager(*args, **kwargs, blocksize=128 * 1024)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
