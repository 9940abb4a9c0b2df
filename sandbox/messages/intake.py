"""The body of ``POST /v1/messages/batches``: taken to disk, then split into lines.

A body may have 256 MB, so it is never in memory as a whole: it is saved as it comes, and read again
through a window that holds one request at a time. What comes out is a file of lines as OpenAI's
side reads them (lines.py). Checked here is what Anthropic checks before it answers: the JSON, the
``custom_id``s, the count and the size; ``params`` only have to be an object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
from aiohttp import web

from sandbox.errors import MESSAGES, ApiError

_CHUNK_BYTES = 1 << 20
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BLANK = re.compile(rb"[ \t\r\n]*+")
_MARK = re.compile(rb'[{}\[\]]|"(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
"""A bracket, or a string; the group is empty when the string has no end."""
_NO_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


class _Model(msgspec.Struct):
    model: str


@dataclass(kw_only=True)
class Taken:
    """What a body holds."""

    total: int = 0
    tokens: int = 0
    """Rough count of prompt tokens: a quarter of the params' bytes."""
    model: str | None = None
    """The first request's."""


class Refused(Exception):
    """The body can't be taken; the message is Anthropic's."""


async def receive(request: web.Request, path: Path, most_bytes: int) -> None:
    """Save the body; raise ApiError 413 when it has more than ``most_bytes``."""
    size = 0
    with path.open("wb") as file:
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            if size > most_bytes:
                raise ApiError(413, "Request exceeds the maximum size")
            file.write(chunk)


def split(body: Path, lines: Path, most: int) -> Taken:
    """Write the requests as lines, at most so many; raise Refused when one can't be taken."""
    taken, seen = Taken(), set[bytes]()
    with body.open("rb") as source, lines.open("wb") as target:
        for raw in _requests(_Window(source)):
            custom_id, params = _read(raw, taken.total)
            digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
            if digest in seen:
                raise Refused(f"requests.{taken.total}.custom_id: '{custom_id}' is not unique")
            seen.add(digest)
            target.write(_line(custom_id, params))
            taken.model = _model(params) if not taken.total else taken.model
            taken.total += 1
            taken.tokens += len(params) // 4
    if not taken.total:
        raise Refused("requests: List should have at least 1 item after validation, not 0")
    if taken.total > most:
        raise Refused(
            f"requests: List should have at most {most} items after validation, not {taken.total}"
        )
    return taken


class _Window:
    """The part of a file that is looked at; it grows until what is looked for is whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._view = b""
        self._at = 0

    def sign(self) -> bytes:
        """Return the next byte that is not blank, without passing it; none at the end."""
        while True:
            gap = _BLANK.match(self._view, self._at)
            self._at = gap.end() if gap else self._at
            if self._at < len(self._view) or not self._grow():
                return self._view[self._at : self._at + 1]

    def expect(self, wanted: bytes) -> None:
        """Pass these bytes, after blanks; raise Refused when others are there."""
        self.sign()
        while len(self._view) - self._at < len(wanted) and self._grow():
            pass
        if not self._view.startswith(wanted, self._at):
            raise _not_json(f"expected '{wanted.decode()}'")
        self._at += len(wanted)

    def whole_object(self) -> bytes:
        """Pass the object that begins here and return it; raise Refused when it has no end."""
        while (end := self._object_end()) is None:
            if not self._grow():
                raise _not_json("unexpected end of data")
        found = self._view[self._at : end]
        self._at = end
        return found

    def _object_end(self) -> int | None:
        depth = 0
        for mark in _MARK.finditer(self._view, self._at):
            sign = mark[0][:1]
            if sign == b'"':
                if not mark[1]:
                    return None
            elif sign in b"{[":
                depth += 1
            else:
                depth -= 1
                if not depth:
                    return mark.end()
        return None

    def _grow(self) -> bool:
        # At least as much again as is there: a long request is looked through few times.
        rest = self._view[self._at :]
        more = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._view, self._at = rest + more, 0
        return bool(more)


def _requests(window: _Window) -> Iterator[bytes]:
    """Yield the elements of ``requests`` as they came; raise Refused unless all around is right."""
    window.expect(b"{")
    if window.sign() == b"}":
        raise Refused("requests: Field required")
    window.expect(b'"requests"')
    window.expect(b":")
    window.expect(b"[")
    number = 0
    while window.sign() != b"]":
        if number:
            window.expect(b",")
        if window.sign() != b"{":
            raise Refused(f"requests.{number}: Input should be an object")
        yield window.whole_object()
        number += 1
    window.expect(b"]")
    window.expect(b"}")
    if window.sign():
        raise _not_json("extra data")


def _read(raw: bytes, number: int) -> tuple[str, bytes]:
    """Return a request's custom_id and params."""
    where = f"requests.{number}"
    try:
        members = _members.decode(raw)
    except msgspec.DecodeError as error:
        raise _not_json(f"{error} in {where}") from error
    for name in ("custom_id", "params"):
        if name not in members:
            raise Refused(f"{where}.{name}: Field required")
    if strange := sorted(set(members) - {"custom_id", "params"}):
        raise Refused(f"{where}.{strange[0]}: Extra inputs are not permitted")
    params = bytes(members["params"])
    if not params.startswith(b"{"):
        raise Refused(f"{where}.params: Input should be an object")
    return _custom_id(members["custom_id"], where), params


def _custom_id(raw: msgspec.Raw, where: str) -> str:
    try:
        value = msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError as error:
        raise Refused(f"{where}.custom_id: Input should be a valid string") from error
    if len(value) > 64:
        raise Refused(f"{where}.custom_id: String should have at most 64 characters")
    if not _ID.fullmatch(value):
        raise Refused(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    return value


def _line(custom_id: str, params: bytes) -> bytes:
    # In JSON a raw newline can only stand between members, where a blank is as good.
    body = params.translate(_NO_NEWLINES)
    members = (custom_id.encode(), MESSAGES.encode(), body)
    return b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n' % members


def _model(params: bytes) -> str | None:
    try:
        return msgspec.json.decode(params, type=_Model).model
    except msgspec.DecodeError:
        return None


def _not_json(reason: str) -> Refused:
    return Refused(f"The request body is not valid JSON: {reason}")
