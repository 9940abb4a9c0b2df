"""One message of the input queue as a value: the requests in it, what is wrong with it, what is replied.

Decides which messages are read and how; `intake_desk` calls it. A message is one request, in the JSON of
`POST /api/requests`, or an array of them. Whatever the bytes are, reading them raises nothing: a message that
can't be read is one with faults. Never touches the database or the broker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from batching.wire import VALIDATION_ERROR, Invalid, Line, check_encoding, explain, read_line

if TYPE_CHECKING:
    from pika.spec import BasicProperties

PROJECT_HEADER: Final = "x-batcher-project"
DEFAULT_PROJECT: Final = "default"
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""RabbitMQ's own bound since 4.0."""
MAX_REQUESTS: Final = 1_000
SHOWN_BYTES: Final = 2_048
LONGEST_PROPERTY: Final = 255

_ARRAY = re.compile(rb"[ \t\r\n]*\[")
_array = msgspec.json.Decoder(list[Raw])


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A message as the broker handed it over; its texts are fit to be stored."""

    body: bytes
    project: str = DEFAULT_PROJECT
    """Name of the project that its requests belong to."""
    message_id: str = ""
    reply_to: str = ""
    correlation_id: str = ""
    is_redelivered: bool = False


class Taken(Struct, frozen=True):
    """A request that we hold."""

    id: str
    custom_id: str
    state: str


class Fault(Struct, frozen=True):
    """Why a request, or a whole message, was not taken."""

    code: str
    detail: str
    pointer: str
    """JSON pointer into the message; empty for all of it."""


class Reply(Struct, frozen=True):
    """What the sender is told when it asks to be."""

    accepted: list[Taken]
    errors: list[Fault]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a message holds: requests with the pointer of each, and faults."""

    lines: list[Line] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def arrived(body: bytes, properties: BasicProperties, *, is_redelivered: bool) -> Arrived:
    """Take what we need from a delivery; properties may hold anything at all."""
    headers = properties.headers or {}
    project = headers.get(PROJECT_HEADER)
    return Arrived(
        body=body,
        project=DEFAULT_PROJECT if project is None else _text(project),
        message_id=_text(properties.message_id or ""),
        reply_to=_text(properties.reply_to or ""),
        correlation_id=_text(properties.correlation_id or ""),
        is_redelivered=is_redelivered,
    )


def read(body: bytes) -> Contents:
    """Read a message. Raises nothing: what is wrong is in the faults, beside the requests that are right."""
    contents = Contents()
    try:
        for pointer, request in _requests(body):
            _read_into(contents, pointer, request)
    except Invalid as problem:
        contents.faults.append(_fault(problem))
    return contents


def _requests(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each request with its pointer. Raises Invalid before the first when there is no telling."""
    if len(body) > MAX_MESSAGE_BYTES:
        detail = f"the message has {len(body):,} bytes; at most {MAX_MESSAGE_BYTES:,} are taken"
        raise Invalid("payload_too_large", detail)
    if not _ARRAY.match(body):
        yield "", body
        return
    check_encoding(body)
    try:
        requests = _array.decode(body)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise explain(problem) from problem
    if not 1 <= len(requests) <= MAX_REQUESTS:
        detail = f"an array must hold 1 to {MAX_REQUESTS:,} requests, not {len(requests):,}"
        raise Invalid(VALIDATION_ERROR, detail)
    for place, request in enumerate(requests):
        yield f"/{place}", bytes(request)


def _read_into(contents: Contents, pointer: str, request: bytes) -> None:
    try:
        line = read_line(request)
    except Invalid as problem:
        contents.faults.append(_fault(problem, below=pointer))
        return
    contents.lines.append(line)
    contents.pointers.append(pointer)


def _fault(problem: Invalid, *, below: str = "") -> Fault:
    return Fault(problem.code, problem.detail, below + problem.pointer)


def beginning(body: bytes) -> str:
    """Return the first 2 kB as text that any database and any page can hold."""
    return printable(body[:SHOWN_BYTES].decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return ``text`` with everything that is no visible character written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _text(value: object) -> str:
    """Return a property or header as text, whatever its type; bytes are what was no UTF-8."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return printable(text)[:LONGEST_PROPERTY]
