"""What a client may send as one request: the wire types, and reading one of them from JSON.

Decides which fields there are, what each may hold, and how a wrong one is worded. The API, the bulk
upload and the RabbitMQ intake call `read_line`; the OpenAPI document is printed from `NewRequest`. Of
`body` only what we need is looked at (`model`, no `stream`): everything else in it is the client's
business and passes through as the bytes that came, but for line breaks between its tokens, which become
spaces, because a provider's input file holds one request on each line. A number that no double can hold is
refused: a provider that reads strictly would refuse the whole file, and with it everyone's lines.
Never touches the database: whether an account, a destination or room exists is `intake`'s question.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, cast, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Endpoint = Literal[
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
    "/v1/messages",
]
"""What the batch APIs run (OpenAI Batch reference, Anthropic's batch guide, 2026)."""

ENDPOINTS: Final[tuple[str, ...]] = get_args(Endpoint)
MAX_DEPTH: Final = 64
"""How deep arrays and objects in `body` may be nested."""

MALFORMED_JSON: Final = "malformed_json"
INVALID_ENCODING: Final = "invalid_encoding"
NESTED_TOO_DEEP: Final = "nested_too_deep"
VALIDATION_ERROR: Final = "validation_error"

UNREADABLE: Final = frozenset({MALFORMED_JSON, INVALID_ENCODING, NESTED_TOO_DEEP})
"""Codes that say the bytes are no JSON of ours at all; any other names a field."""

RULES: Final = {
    "": "must be a JSON object",
    "/custom_id": "must be a string of 1 to 512 characters without control characters",
    "/url": f"must be one of {', '.join(ENDPOINTS)}",
    "/method": 'must be "POST"',
    "/body": "must be a JSON object with a string `model`; it is sent to the provider as it is",
    "/body/model": "must be a string of 1 to 200 characters without control characters",
    "/delivery_config": "must be an object that says where the result goes",
    "/delivery_config/type": "must be webhook, rabbitmq, none or destination",
    "/delivery_config/webhook_url": "must be an http or https URL of at most 2048 characters",
    "/delivery_config/rabbitmq_queue": "must be a string of 1 to 255 bytes without control characters",
    "/delivery_config/rabbitmq_exchange": "must be a string of 1 to 255 bytes without control characters",
    "/delivery_config/rabbitmq_routing_key": "must be a string of 1 to 255 bytes without control characters",
    "/delivery_config/name": "must be the name of a destination, 1 to 100 characters",
    "/max_wait_s": "must be a whole number of seconds from 0 to 2592000 (30 days); 0 sends at the next tick",
    "/deliver_by": "must be a date and time with an offset, like 2026-03-01T12:00:00Z",
    "/priority": "must be a whole number from -100 to 100; higher goes first",
    "/metadata": "must be an object of at most 16 pairs of strings: keys of 1 to 64 characters, values of at most 512, without NUL",
    "/account": "must be the name of an account, 1 to 100 characters",
}
"""What each field must be: the text of its error and its description in the OpenAPI document."""

# Patterns of what must not be in a text. No `$`: to Python it also means "before a last line break".
_PLAIN = r"^(?![\s\S]*[\x00-\x1f\x7f-\x9f])"
_PLAIN_URL = r"^(?![\s\S]*[\x00-\x20\x7f-\x9f])"
_NO_NUL = r"^(?![\s\S]*\x00)"


def _text(field: str, longest: int, pattern: str = _PLAIN) -> Meta:
    return Meta(min_length=1, max_length=longest, pattern=pattern, description=RULES[field])


_EXCHANGE_NAMES: Final = frozenset({"rabbitmq_exchange", "rabbitmq_routing_key"})
_AmqpName = Annotated[str, _text("/delivery_config/rabbitmq_queue", 255)]


class ToWebhook(Struct, tag="webhook", tag_field="type", forbid_unknown_fields=True, frozen=True):
    """The result is POSTed to a URL."""

    webhook_url: Annotated[str, _text("/delivery_config/webhook_url", 2048, _PLAIN_URL)]


class ToRabbitmq(Struct, tag="rabbitmq", tag_field="type", forbid_unknown_fields=True, frozen=True):
    """The result is published: to `rabbitmq_queue`, or to `rabbitmq_exchange` with `rabbitmq_routing_key`."""

    rabbitmq_queue: _AmqpName | UnsetType = UNSET
    rabbitmq_exchange: _AmqpName | UnsetType = UNSET
    rabbitmq_routing_key: _AmqpName | UnsetType = UNSET


class ToNobody(Struct, tag="none", tag_field="type", forbid_unknown_fields=True, frozen=True):
    """The result is kept; the client pulls it."""


class ToDestination(
    Struct, tag="destination", tag_field="type", forbid_unknown_fields=True, frozen=True
):
    """The result goes to a destination that an operator named."""

    name: Annotated[str, _text("/delivery_config/name", 100)]


DeliveryConfig = ToWebhook | ToRabbitmq | ToNobody | ToDestination


class NewRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """One request as a client sends it."""

    custom_id: Annotated[str, _text("/custom_id", 512)]
    url: Annotated[Endpoint, Meta(description=RULES["/url"])]
    method: Annotated[Literal["POST"], Meta(description=RULES["/method"])]
    body: Annotated[
        Raw,
        Meta(
            description=RULES["/body"],
            extra_json_schema={
                "type": "object",
                "required": ["model"],
                "properties": {
                    "model": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 200,
                        "pattern": _PLAIN,
                    },
                    "stream": {"not": {"const": True}},
                },
            },
        ),
    ]
    delivery_config: Annotated[DeliveryConfig, Meta(description=RULES["/delivery_config"])]
    max_wait_s: (
        Annotated[int, Meta(ge=0, le=2_592_000, description=RULES["/max_wait_s"])] | None
    ) = None
    deliver_by: Annotated[datetime, Meta(tz=True, description=RULES["/deliver_by"])] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100, description=RULES["/priority"])] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Meta(min_length=1, max_length=64, pattern=_NO_NUL)],
                Annotated[str, Meta(max_length=512, pattern=_NO_NUL)],
            ],
            Meta(max_length=16, description=RULES["/metadata"]),
        ]
        | None
    ) = None
    account: Annotated[str, _text("/account", 100)] | None = None


class BatchLine(NewRequest, forbid_unknown_fields=True, frozen=True):
    """One line of a client's batch file: its result may go where the batch's results go."""

    delivery_config: DeliveryConfig | None = None  # type: ignore[assignment]  # wider on purpose


class _Body(Struct, frozen=True):
    """The part of a body that we look at."""

    model: Annotated[str, _text("/body/model", 200)]
    stream: Raw = Raw()


class Delivery(Struct, frozen=True, kw_only=True):
    """Where one result goes, checked; what was not given is empty."""

    type: Literal["webhook", "rabbitmq", "none", "destination"]
    url: str = ""
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    name: str = ""


NOBODY: Final = Delivery(type="none")


class Line(Struct, frozen=True, kw_only=True):
    """One request, read and checked."""

    custom_id: str
    url: str
    body: bytes
    """As it came, on one line."""
    model: str
    delivery: Delivery | None = None
    """None: the front door that took it has no word for it, and the client pulls."""
    max_wait_s: int | None = None
    deliver_by: datetime | None = None
    """In UTC."""
    priority: int = 0
    metadata: bytes = b"{}"
    """The client's pairs as a JSON object."""
    account: str = ""


class Invalid(ValueError):
    """A request can't be taken; `pointer` is the JSON pointer of what is wrong, empty for all of it."""

    def __init__(self, code: str, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.pointer = pointer


_request = msgspec.json.Decoder(NewRequest)
_batch_line = msgspec.json.Decoder(BatchLine)
_delivery_config = msgspec.json.Decoder(DeliveryConfig)
_body = msgspec.json.Decoder(_Body)


def read_line(data: bytes) -> Line:
    """Read one request from JSON. Raises Invalid, and nothing else, whatever the bytes are."""
    return _read(data, _request)


def read_batch_line(data: bytes) -> Line:
    """Read one line of a client's batch file. Raises Invalid, and nothing else."""
    return _read(data, _batch_line)


def read_call(url: str, body: bytes, about: Mapping[str, object]) -> Line:
    """Read a request whose body came by itself; ``about`` has the other fields, by name.

    Raises Invalid, and nothing else, whatever the bytes are.
    """
    check_encoding(body)
    try:
        msgspec.json.decode(body, type=Raw)  # by itself, before it stands among other fields
    except (msgspec.DecodeError, RecursionError) as problem:
        raise explain(problem, below="/body") from problem
    sent = {**about, "url": url, "method": "POST", "body": Raw(body)}
    return _read(msgspec.json.encode(sent), _batch_line)


def read_delivery(config: bytes) -> Delivery:
    """Read a ``delivery_config`` that stands by itself. Raises Invalid."""
    check_encoding(config)
    try:
        return delivery_of(_delivery_config.decode(config))
    except (msgspec.DecodeError, RecursionError) as problem:
        raise explain(problem, below="/delivery_config") from problem


def _read(data: bytes, decoder: msgspec.json.Decoder[Any]) -> Line:
    check_encoding(data)
    try:
        sent = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise explain(problem) from problem
    body = bytes(sent.body)
    return Line(
        custom_id=sent.custom_id,
        url=sent.url,
        body=_on_one_line(body),
        model=_model_of(body),
        delivery=delivery_of(sent.delivery_config) if sent.delivery_config is not None else None,
        max_wait_s=sent.max_wait_s,
        deliver_by=_in_utc(sent.deliver_by),
        priority=sent.priority or 0,
        metadata=msgspec.json.encode(sent.metadata or {}),
        account=sent.account or "",
    )


def check_encoding(data: bytes) -> None:
    """Raise Invalid unless the bytes are UTF-8; what is skipped unread is checked nowhere else."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as problem:
        raise Invalid(
            INVALID_ENCODING, f"not UTF-8: {problem.reason} at byte {problem.start}"
        ) from None


def _on_one_line(body: bytes) -> bytes:
    # A raw line break inside a string is no JSON and was refused: these stand between tokens.
    if b"\n" in body or b"\r" in body:
        return body.replace(b"\r", b" ").replace(b"\n", b" ")
    return body


def _model_of(body: bytes) -> str:
    if is_deeper_than(MAX_DEPTH, body):
        raise Invalid(NESTED_TOO_DEEP, f"body is nested deeper than {MAX_DEPTH} levels", "/body")
    try:
        seen = _body.decode(body)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise explain(problem, below="/body") from problem
    if (pointer := _endless_number_in(body)) is not None:
        detail = "a number here is too big for a double; strict readers refuse it"
        raise Invalid(VALIDATION_ERROR, detail, f"/body{pointer}")
    if bytes(seen.stream) == b"true":
        raise Invalid(VALIDATION_ERROR, "a batch has no stream: leave `stream` out", "/body/stream")
    return seen.model


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"{}[]"))


def is_deeper_than(limit: int, data: bytes) -> bool:
    """Tell whether arrays and objects in valid JSON are nested deeper than `limit`; linear in time."""
    if data.count(b"{") + data.count(b"[") <= limit:
        return False
    brackets = _STRING.sub(b"", data).translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


# Nothing below ten to the 309th needs a closer look, and hardly any body holds more than that.
_MAYBE_ENDLESS = re.compile(rb"[0-9]{309}|[0-9][eE]\+?0*[0-9]{3}|[0-9]{100}[0-9]*[eE.]")


def _endless_number_in(body: bytes) -> str | None:
    """Return the JSON pointer of a number that becomes infinite as a double; None without one."""
    if not _MAYBE_ENDLESS.search(body) or not _MAYBE_ENDLESS.search(_STRING.sub(b"", body)):
        return None
    return _endless_at(json.loads(body, parse_int=float, object_pairs_hook=tuple))


def _endless_at(value: Any) -> str | None:
    """Walk a value of bounded depth whose objects are tuples of pairs, so that doubled names stay."""
    if isinstance(value, float):
        return "" if math.isinf(value) else None
    members = value if isinstance(value, tuple) else ()
    for name, member in enumerate(value) if isinstance(value, list) else members:
        if (below := _endless_at(member)) is not None:
            return f"/{str(name).replace('~', '~0').replace('/', '~1')}{below}"
    return None


def _in_utc(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise _broken("/deliver_by") from None


def delivery_of(config: DeliveryConfig) -> Delivery:
    """Return where a config leads. Raises Invalid."""
    if isinstance(config, ToNobody):
        return NOBODY
    if isinstance(config, ToDestination):
        return Delivery(type="destination", name=config.name)
    if isinstance(config, ToWebhook):
        _check_webhook_url(config.webhook_url)
        return Delivery(type="webhook", url=config.webhook_url)
    return _rabbitmq_delivery(config)


def _rabbitmq_delivery(config: ToRabbitmq) -> Delivery:
    given = {f: v for f in config.__struct_fields__ if (v := getattr(config, f)) is not UNSET}
    if given.keys() not in ({"rabbitmq_queue"}, _EXCHANGE_NAMES):
        raise _not_one_place(given.keys())
    for field, name in given.items():
        if len(name.encode()) > 255:
            raise _broken(f"/delivery_config/{field}")
    return Delivery(
        type="rabbitmq",
        queue=given.get("rabbitmq_queue", ""),
        exchange=given.get("rabbitmq_exchange", ""),
        routing_key=given.get("rabbitmq_routing_key", ""),
    )


def _not_one_place(given: Set[str]) -> Invalid:
    """Say which name is missing, or that there are names of two places."""
    if "rabbitmq_queue" in given or not given:
        field = min(given - {"rabbitmq_queue"}, default="rabbitmq_queue")
    else:
        field = min(_EXCHANGE_NAMES - given)
    detail = "give either rabbitmq_queue, or rabbitmq_exchange together with rabbitmq_routing_key"
    return Invalid(VALIDATION_ERROR, detail, f"/delivery_config/{field}")


@lru_cache(maxsize=1024)
def _webhook_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no port number
    except ValueError as problem:
        return f"is no URL: {problem}"
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if "@" in parts.netloc:
        return "must not hold a user name or password"
    return "" if parts.hostname else "must name a host"


def _check_webhook_url(url: str) -> None:
    if problem := _webhook_problem(url):
        pointer = "/delivery_config/webhook_url"
        raise Invalid(VALIDATION_ERROR, f"webhook_url {problem}", pointer)


_WHERE = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.+)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)


_PLACE = re.compile(r"\[([0-9]+)\]")
"""How msgspec writes a place in a list."""


def explain(problem: Exception, *, below: str = "") -> Invalid:
    """Put what msgspec (or the depth of our stack) says into plain words and a JSON pointer.

    ``below`` is the pointer of the value that was decoded.
    """
    if isinstance(problem, RecursionError):
        return Invalid(NESTED_TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels", below)
    if not isinstance(problem, msgspec.ValidationError):
        words = str(problem).removeprefix("JSON is malformed: ")
        return Invalid(MALFORMED_JSON, f"not valid JSON: {words}", below)
    found = cast("re.Match[str]", _WHERE.match(str(problem)))
    what, path = found["what"], (found["path"] or "").replace("[...]", "")
    pointer = below + _PLACE.sub(r"/\1", path).replace(".", "/")
    if missing := _MISSING.match(what):
        return Invalid(VALIDATION_ERROR, f"{missing[1]} is missing", f"{pointer}/{missing[1]}")
    if unknown := _UNKNOWN.match(what):
        name = unknown[1][:100]
        escaped = name.replace("~", "~0").replace("/", "~1")
        return Invalid(
            VALIDATION_ERROR, f"{name} is not a known field here", f"{pointer}/{escaped}"
        )
    return _broken(pointer)


def _broken(pointer: str) -> Invalid:
    subject = pointer.rpartition("/")[2] or "a request"
    return Invalid(VALIDATION_ERROR, f"{subject} {RULES.get(pointer, 'is not valid')}", pointer)
