"""Asks a judge before a provider's connection is opened, for people may type a provider's base URL.

``registry.provider_for`` names the judge while it makes a provider; ``http`` keeps it and names it again around
each call; ``deadline`` opens the connection by `opened`. So no provider's own file has to pass it on, and none
can forget it. A host is resolved once, all its addresses are judged, and only judged ones are connected to.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from urllib3.connection import HTTPConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

Judge = Callable[[str, int, Sequence[str]], Sequence[str]]
"""Takes host, port and addresses; returns those to connect to, or raises AddressBlockedError."""

_judge: ContextVar[Judge | None] = ContextVar("judge", default=None)

Sock = TypeVar("Sock")


@contextmanager
def judged_by(judge: Judge | None) -> Iterator[None]:
    """Let this judge be asked within the block; None asks nobody."""
    token = _judge.set(judge)
    try:
        yield
    finally:
        _judge.reset(token)


def present_judge() -> Judge | None:
    """Return who is asked now."""
    return _judge.get()


def opened(connection: HTTPConnection, connect: Callable[[], Sock]) -> Sock:
    """Return what ``connect`` makes of the connection, to a judged address when there is a judge."""
    judge = _judge.get()
    if judge is None:
        return connect()
    name, trouble = connection._dns_host, None
    try:
        for address in judge(connection.host, connection.port, _addresses(connection)):
            connection._dns_host = address
            try:
                return connect()
            except NewConnectionError as error:
                trouble = error
    finally:
        connection._dns_host = name  # TLS checks the certificate against it
    raise trouble or NewConnectionError(connection, f"{connection.host} has no address")


def _addresses(connection: HTTPConnection) -> list[str]:
    try:
        infos = socket.getaddrinfo(connection._dns_host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        cause = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(connection.host, connection, cause) from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))
