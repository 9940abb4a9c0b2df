"""Scripted webhook receivers on real sockets: each answers, hangs, drips or lies as a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

Act = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One connection, seen from the receiver."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    receiver: Receiver

    async def request(self) -> Request | None:
        """Read one whole request; None when the sender hung up."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (s.partition(": ") for s in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(first, headers, body)
        self.receiver.requests.append(request)
        return request

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, pieces: Iterable[bytes], *, every_s: float = 0.02) -> None:
        for piece in pieces:
            await self.say(piece)
            await asyncio.sleep(every_s)


@dataclass
class Request:
    first_line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came in."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def receiving(
    act: Act, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    visits: set[asyncio.Task[None]] = set()

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        task = asyncio.current_task()
        assert task is not None
        visits.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await act(Visit(reader, writer, receiver))
        writer.close()
        visits.discard(task)

    server = await asyncio.start_server(visited, host, port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(visits):
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        await server.wait_closed()


def answering(status_line: str, *headers: str, body: bytes = b"") -> Act:
    """Answer every request of every connection alike, keeping connections open."""
    lines = [f"HTTP/1.1 {status_line}", f"content-length: {len(body)}", *headers]
    answer = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    async def act(visit: Visit) -> None:
        while await visit.request():
            await visit.say(answer)

    return act


async def hanging(visit: Visit) -> None:
    """Read the request and never answer."""
    await visit.request()
    await asyncio.sleep(60)


async def hanging_up(visit: Visit) -> None:
    """Read the request and close."""
    await visit.request()
