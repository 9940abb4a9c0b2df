"""The body of a new message batch, from the wire to a file of lines, in constant memory.

Decides what is said at once of a request that can't be taken: which one it is and which member is at fault. What
is spooled is a line as `clientlines` reads it, with the params as the bytes that came, but for line breaks between
their tokens. Whether a provider likes the params is the provider's answer to that request. Stores no request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from batching import clientlines, intake, wire
from batching.api import errors, reading
from batching.api.anthropic.door import Problem
from batching.api.auth import Caller
from batching.api.doors import checked_delivery
from batching.api.errors import ApiError
from batching.api.jsonstream import JsonText, TooLong
from batching.clientlines import Checker, Defaults, LineError
from batching.wire import Invalid

ENDPOINT: Final = "/v1/messages"
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
MAX_REQUESTS: Final = 100_000
MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
"""Anthropic's own bounds (Message Batches guide, 2026); a request may have what a call to /v1/messages may."""
_MAX_MEMBER_BYTES: Final = 64 * 1024
_FORBIDDEN: Final = 403
_NEEDED, _UNWANTED = "Field required", "Extra inputs are not permitted"
_RULES: Final = {
    "": "Input should be an object",
    "/custom_id": "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    "/params": "Input should be an object",
    "/params/model": "Input should be a string of 1 to 200 characters",
    "/params/max_tokens": "Input should be a whole number, at least 1",
}
"""What is said when a member is there and wrong."""


class _Params(Struct, frozen=True):
    """The part of a request's params that we look at."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    max_tokens: Annotated[int, Meta(ge=1)]


class _Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """One element of ``requests``; the members behind ``params`` are ours, not Anthropic's."""

    custom_id: Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9_-]{1,64}\Z")]
    params: Raw
    delivery_config: Raw = Raw()
    max_wait_s: Raw = Raw()
    deliver_by: Raw = Raw()
    priority: Raw = Raw()
    metadata: Raw = Raw()
    account: Raw = Raw()


_asked = msgspec.json.Decoder(_Asked)
_params = msgspec.json.Decoder(_Params)
_EXTRAS: Final = _Asked.__struct_fields__[2:]


@dataclass(kw_only=True)
class Taken:
    """What a body held."""

    requests: int = 0
    delivery_config: dict[str, Any] | None = None
    """Where results go whose request names no place."""


def take(caller: Caller, pieces: Iterator[bytes], write: Callable[[bytes], None]) -> Taken:
    """Read a body to its end, passing each request on as a line. Raises ApiError, Invalid.

    What is wrong ends the reading, but not the call: its body is still let in, so that the client, who may be
    busy sending, gets to see the answer.
    """
    try:
        return _Taking(caller, write).read(pieces)
    except (ApiError, Invalid):
        _let_in(pieces)
        raise


def _let_in(pieces: Iterator[bytes]) -> None:
    try:
        for _ in pieces:
            continue
    except ApiError:  # a second thing is wrong; the first is told
        return


class _Taking:
    """One body on its way in."""

    def __init__(self, caller: Caller, write: Callable[[bytes], None]) -> None:
        self._caller, self._write = caller, write
        self._intake = intake.Check(caller.project, caller.key)
        self._checker = Checker(self._intake, Defaults(delivery=None, max_wait_s=0))
        self._taken = Taken()
        self._without_place: bytes | None = None
        """A line that goes where the batch's results go."""

    def read(self, pieces: Iterator[bytes]) -> Taken:
        text, seen, config = JsonText(pieces), set[str](), b""
        for name in text.members():
            if name in seen:
                raise Problem(400, f"{name[:100]}: Field is there more than once")
            seen.add(name)
            if name == "requests":
                self._read_requests(text)
            elif name == "delivery_config":
                config = _short(text, name)
            else:
                raise Problem(400, f"{name[:100]}: {_UNWANTED}")
        text.end()
        if "requests" not in seen:
            raise Problem(400, f"requests: {_NEEDED}")
        self._check_place(config)
        return self._taken

    def _read_requests(self, text: JsonText) -> None:
        number = 0
        try:
            for number, element in enumerate(text.elements(MAX_REQUEST_BYTES)):
                if number >= MAX_REQUESTS:
                    raise Problem(400, f"requests: List should have at most {MAX_REQUESTS} items")
                self._take(number, element)
                self._taken.requests = number + 1
        except TooLong:
            where = f"requests.{self._taken.requests}"
            limit = f"a request may have {MAX_REQUEST_BYTES:,} bytes"
            raise Problem(413, f"{where}: {limit}") from None
        if not self._taken.requests:
            raise Problem(400, "requests: List should have at least 1 item, not 0")

    def _take(self, number: int, element: bytes) -> None:
        try:
            asked = _read(element)
        except Invalid as problem:
            raise Problem(400, f"requests.{number}{_told(problem)}") from problem
        line = _line(asked)
        wrong = self._checker.problem(number, line)
        if wrong is not None:
            raise _refused(number, wrong)
        if self._without_place is None and bytes(asked.delivery_config) in (b"", b"null"):
            self._without_place = line
        self._write(line)

    def _check_place(self, config: bytes) -> None:
        """Note where results go, and check that this caller may send them there."""
        self._taken.delivery_config = checked_delivery(self._caller, config)
        if self._taken.delivery_config is None or self._without_place is None:
            return
        defaults = Defaults(delivery=wire.read_delivery(config), max_wait_s=0)
        wrong = Checker(self._intake, defaults).problem(0, self._without_place)
        if wrong is not None:
            raise Problem(_status(wrong), f"{wrong.param or 'delivery_config'}: {wrong.message}")


def _short(text: JsonText, name: str) -> bytes:
    try:
        return text.value(_MAX_MEMBER_BYTES)
    except TooLong:
        raise Problem(400, f"{name}: at most {_MAX_MEMBER_BYTES:,} bytes are taken") from None


def _read(element: bytes) -> _Asked:
    """Read one request. Raises Invalid."""
    wire.check_encoding(element)
    try:
        asked = _asked.decode(element)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise wire.explain(problem) from problem
    try:
        _params.decode(asked.params)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise wire.explain(problem, below="/params") from problem
    return asked


def _line(asked: _Asked) -> bytes:
    """Return the request as a line of a batch file."""
    ours = {name: raw for name in _EXTRAS if bytes(raw := getattr(asked, name))}
    line = msgspec.json.encode(
        {"custom_id": asked.custom_id, "method": "POST", "url": ENDPOINT, "body": asked.params}
        | ours
    )
    # Between tokens only: inside of a string a line break is no JSON, and was refused.
    return line.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


def _told(problem: Invalid) -> str:
    """Return what is wrong, behind the place of its request."""
    where = problem.pointer.replace("/", ".")
    if problem.code != wire.VALIDATION_ERROR:
        return f"{where}: {problem.detail}"
    if problem.detail.endswith(" is missing"):
        return f"{where}: {_NEEDED}"
    if problem.detail.endswith(" is not a known field here"):
        return f"{where}: {_UNWANTED}"
    return f"{where}: {_RULES.get(problem.pointer, problem.detail)}"


def _refused(number: int, wrong: LineError) -> Problem:
    """Put what is wrong with a line into the words of the body that it came in."""
    if wrong.code == clientlines.DUPLICATE:
        message = "custom_id: the same one is on an earlier request"
        return Problem(400, f"requests.{number}.{message}")
    first, _, rest = (wrong.param or "").partition(".")
    place = {"body": "params", "url": ""}.get(first, first)
    where = ".".join(filter(None, ("requests", str(number), place, rest)))
    return Problem(_status(wrong), f"{where}: {wrong.message}")


def _status(wrong: LineError) -> int:
    return _FORBIDDEN if errors.status_of(wrong.code) == _FORBIDDEN else 400


__all__ = ["ENDPOINT", "MAX_BODY_BYTES", "Taken", "reading", "take"]
