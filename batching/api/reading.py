r"""The bytes of a call: bounded, unzipped, and cut into lines, never all in memory at once.

Decides how much a client may send and in which encodings. `intake_views` calls it. Reads the server's
stream itself, because Django knows no chunked bodies, and cuts lines at ``\n`` bytes only, because
U+2028 and its kin are legal inside JSON strings.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol, cast

from django.http import HttpRequest

from batching.api.errors import ApiError

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""One request, as it arrives and unzipped; also one line of a bulk upload."""
MAX_UPLOAD_BYTES: Final = 8 * 1024 * 1024 * 1024
"""A bulk upload, unzipped."""

_PIECE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_body(request: HttpRequest) -> bytes:
    """Return the whole body, unzipped. Raises ApiError 413 before more than the bound is held."""
    return b"".join(pieces(request, at_most=MAX_BODY_BYTES))


def pieces(request: HttpRequest, *, at_most: int) -> Iterator[bytes]:
    """Yield the body piece by piece, unzipped.

    Raises ApiError 413 past ``at_most`` bytes, at once when so many are announced; 400 when the body breaks off, 415 for an encoding or a
    media type that is none of ours.
    """
    is_gzip = _is_gzip(request)
    if _announced(request) > at_most:
        raise too_large(at_most)
    came = _as_sent(request)
    seen = 0
    for piece in _unzipped(came) if is_gzip else came:
        seen += len(piece)
        if seen > at_most:
            raise too_large(at_most)
        yield piece


def form_pieces(request: HttpRequest, *, at_most: int) -> Iterator[bytes]:
    """Yield a form's body piece by piece, as it is sent. Raises ApiError 413 past ``at_most`` bytes."""
    seen = 0
    for piece in _as_sent(request):
        seen += len(piece)
        if seen > at_most:
            raise too_large(at_most)
        yield piece


def lines(source: Iterator[bytes], *, longest: int) -> Iterator[tuple[int, bytes | None]]:
    r"""Yield (1-based number, line) of each line that is not blank; None stands for an over-long one.

    The last line needs no ``\n``. An over-long line is dropped as it comes.
    """
    number, held, size = 1, list[bytes](), 0
    for piece in source:
        first, *more = piece.split(b"\n")
        for part in more:
            held.append(first)
            size += len(first)
            yield from _line(number, held, size, longest)
            number, held, size, first = number + 1, [], 0, part
        size += len(first)
        if size <= longest:
            held.append(first)
        else:
            held.clear()
    yield from _line(number, held, size, longest)


def _line(
    number: int, held: list[bytes], size: int, longest: int
) -> Iterator[tuple[int, bytes | None]]:
    if size > longest:
        yield number, None
        return
    line = b"".join(held)
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if line and not line.isspace():
        yield number, line


def too_large(limit: int) -> ApiError:
    """Return the error for a body over its bound."""
    return ApiError("payload_too_large", f"at most {limit:,} bytes are taken, unzipped")


def _announced(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0


def _is_gzip(request: HttpRequest) -> bool:
    if (request.content_type or "").startswith("multipart/"):
        raise _unsupported("send JSON, not a form")
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise _unsupported("the content encodings taken are gzip and identity")
    return _ENCODINGS[encoding]


def _unsupported(detail: str) -> ApiError:
    return ApiError("unsupported_media_type", detail)


def _as_sent(request: HttpRequest) -> Iterator[bytes]:
    """Yield what the client sent: up to its Content-Length, or to the end of a chunked body."""
    stream = cast(_Stream, request.META["wsgi.input"])
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        while piece := _read(stream, _PIECE):
            yield piece
        return
    left = _announced(request)
    while left:
        piece = _read(stream, min(left, _PIECE))
        if not piece:
            raise _incomplete()
        left -= len(piece)
        yield piece


def _read(stream: _Stream, size: int) -> bytes:
    try:
        return stream.read(size)
    except OSError as problem:
        raise _incomplete() from problem


def _incomplete() -> ApiError:
    return ApiError("incomplete_body", "the body ended before its announced length")


def _unzipped(source: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of one or more gzip members, in pieces of bounded size."""
    member, is_open = zlib.decompressobj(_GZIP), False
    for piece in source:
        rest, is_full = piece, False
        while rest or is_full:
            content = _decompress(member, rest)
            is_open, is_full, rest = True, len(content) == _PIECE, member.unconsumed_tail
            if content:
                yield content
            if member.eof:
                rest, member, is_open = member.unused_data, zlib.decompressobj(_GZIP), False
                is_full = False
    if is_open:
        raise _not_gzip("the gzip body breaks off")


def _decompress(member: zlib._Decompress, compressed: bytes) -> bytes:
    try:
        return member.decompress(compressed, _PIECE)
    except zlib.error:
        raise _not_gzip("the body is not gzip") from None


def _not_gzip(detail: str) -> ApiError:
    return ApiError("malformed_gzip", detail)
