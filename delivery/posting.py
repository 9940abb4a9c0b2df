"""Put one post on a kept connection and hear its answer: aiohttp's connections and parser without its session.

A session makes a request, a response and several timers for every post, which costs more than sending a
result does. Here what all posts to a place have in common is made once, as an `Address`; a `Post` writes its
bytes in one piece and keeps what the parser makes of the answer. Connections are opened, judged, kept and closed by
the connector of ``dialing``. Called by ``webhook`` alone; docs/decisions/0010 says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from delivery.dialing import KEEP_ALIVE_S, Dial, current_dial
from delivery.timelimits import TimeLimits

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

logger = logging.getLogger(__name__)

_READ_LIMIT = 64 * 1024
"""An answer up to this size is read to its end, so that the connection can be used again."""
_MAX_ANSWER_HEADERS = 100
_MAX_ANSWER_LINE = 8190
_JOINED_BODY_BYTES = 64 * 1024
"""Up to this size head and body leave together; to copy a larger body costs more than a second write."""


class Address:
    """A place for posts and the part of their head that never changes; made inside its event loop."""

    def __init__(self, url: URL, headers: Iterable[tuple[str, str]]) -> None:
        """Take headers of ASCII without line ends; raise ValueError for what is not ASCII."""
        self.url = url
        self.request = ClientRequest("POST", url, loop=asyncio.get_running_loop())
        """What the connector asks of a connection; it is never sent."""
        first = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {self.request.headers['Host']}\r\n"
        self.head = first.encode("ascii") + header_lines(headers)


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return headers as they stand in the head of a post; raise ValueError for what is not ASCII."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("ascii")


class Line:
    """Where posts leave one after another, in one task: it keeps the connection that the last one left fit for more.

    Spares each post the way to the connector's pool and back, and a timer.
    """

    def __init__(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> None:
        self._limits = TimeLimits()
        self.dial = Dial(host="", port=0)
        """How the connection of the present or the last post came about."""
        self._connector, self._timeout = connector, timeout
        self._address: Address | None = None
        self._kept: Connection | None = None
        self._kept_at = 0.0
        self._loop = asyncio.get_running_loop()

    def within(self, seconds: float) -> TimeLimits:
        """Return what limits the time of all that is done inside ``with``."""
        return self._limits.within(seconds)

    async def take(self, address: Address) -> Connection:
        """Return a connection to the address; raises what ``dialing.FAILURES`` names."""
        kept, self._kept = self._kept, None
        if kept is not None:
            if self._loop.time() - self._kept_at > KEEP_ALIVE_S:
                kept.close()
            elif address is self._address and _is_fit(kept):
                self.dial.is_new = False
                return kept
            else:
                kept.release()  # and the connector closes what is not fit
        self._address, url = address, address.url
        self.dial = Dial(
            host=url.raw_host or "", port=url.port or 0, is_encrypted=url.scheme == "https"
        )
        token = current_dial.set(self.dial)
        try:
            return await self._connector.connect(address.request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        finally:
            current_dial.reset(token)

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose answer was read to its end."""
        if _is_fit(connection):
            self._kept, self._kept_at = connection, self._loop.time()
        else:
            connection.release()

    def close(self) -> None:
        """Leave the connection to others."""
        self._limits.close()
        if self._kept is not None:
            self._kept.release()
            self._kept = None


def _is_fit(connection: Connection) -> bool:
    """Tell whether the next post may use it: open, and nothing came that nobody asked for."""
    protocol = connection.protocol
    return protocol is not None and protocol.is_connected() and not protocol.should_close


class Post:
    """One post; what was heard of its answer stays when it is cut short."""

    def __init__(self, address: Address, head: bytes, body: bytes) -> None:
        """Take the lines of the head that are this post's own, and the bytes to send."""
        self.heard: RawResponseMessage | None = None
        """Status and headers, once they are there."""
        self.answer = bytearray()
        """The beginning of the answer's body."""
        self._address, self._head, self._body = address, head, body

    async def run(self, line: Line) -> None:
        """Send it and read the answer; raises what ``dialing.FAILURES`` names until there is a status.

        A connection whose answer was not read to its end is closed, never used again.
        """
        connection = await line.take(self._address)
        is_whole = False
        try:
            is_whole = await self._talk(connection)
        finally:
            if is_whole:
                line.keep(connection)
            else:
                connection.close()

    async def _talk(self, connection: Connection) -> bool:
        """Return whether all was sent and the answer read to its end."""
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_MAX_ANSWER_LINE,
            max_field_size=_MAX_ANSWER_LINE,
            max_headers=_MAX_ANSWER_HEADERS,
        )
        self._write(transport)
        self.heard, content = await self._next_answer(protocol)
        return await self._read(content) and not transport.get_write_buffer_size()

    def _write(self, transport: asyncio.Transport) -> None:
        """Hand over all of it: what the socket does not take yet waits there, and answers are heard meanwhile."""
        body = self._body
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._address.head, self._head, len(body))
        if len(body) <= _JOINED_BODY_BYTES:
            transport.write(head + body)
            return
        transport.write(head)
        transport.write(body)

    async def _next_answer(
        self, protocol: ResponseHandler
    ) -> tuple[RawResponseMessage, StreamReader]:
        """Return the answer that is not provisional, as 100 Continue is."""
        while True:
            try:
                message, content = await protocol.read()
            except HttpProcessingError as error:
                raise aiohttp.ClientResponseError(self._address.request.request_info, ()) from error
            if not 100 <= message.code < 200 or message.code == 101:
                return message, content

    async def _read(self, content: StreamReader) -> bool:
        """Read the beginning of the body; the status has decided already, so one cut short is no fault."""
        try:
            while len(self.answer) < _READ_LIMIT:
                piece = await content.readany()
                if not piece:
                    return True
                self.answer += piece
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("answer cut short", extra={"error": type(error).__name__})
        return False
