"""Parts of a file (RFC 9110, Range): which bytes are asked for, and the answer that holds them.

Decides what is answered to a range: one is honoured, several are answered with the whole file, one outside
of it with 416. Called by the view of a file's content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

from batching.api.openai.door import Problem

_RANGE: Final = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$", re.ASCII)
_BINARY: Final = "application/octet-stream"


def asked(header: str, size: int) -> tuple[int, int] | None:
    """Return the half-open range that a header asks of ``size`` bytes; None: all of them.

    Raises ValueError when no byte of the file is in it.
    """
    found = _RANGE.match(header.strip())
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        start, end = max(0, size - length), size
    else:
        start = int(found[1])
        end = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= end:
        raise ValueError("outside of the file")
    return start, end


def outside(size: int) -> HttpResponse:
    """Return the answer to a range outside of a file."""
    answer = Problem(416, "The range is outside of the file.", param="range").response()
    answer["Content-Range"] = f"bytes */{size}"
    return answer


def content(
    body: Iterator[bytes], *, filename: str, size: int | None, part: tuple[int, int] | None
) -> HttpResponseBase:
    """Return a file, or the part of it that ``body`` yields; with no size it is still growing."""
    answer = StreamingHttpResponse(body, content_type=_BINARY, status=206 if part else 200)
    answer["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    answer["X-Content-Type-Options"] = "nosniff"
    if size is None:
        return answer
    answer["Accept-Ranges"] = "bytes"
    start, end = part or (0, size)
    answer["Content-Length"] = str(end - start)
    if part:
        answer["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return answer


def cut(pieces: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` to ``end`` of what would be a whole file."""
    at = 0
    for piece in pieces:
        before, at = at, at + len(piece)
        if at <= start:
            continue
        yield piece[max(0, start - before) : end - before]
        if at >= end:
            return


def joined(lines: Iterator[bytes], *, at_least: int = 64 * 1024) -> Iterator[bytes]:
    """Yield lines in pieces that are worth a write to a socket."""
    held, size = list[bytes](), 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= at_least:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
