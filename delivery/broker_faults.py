"""What RabbitMQ and pika mean when they complain: Outcome codes and lines for the operator.

Only ``broker_stream`` uses this. RabbitMQ tells most faults by closing the channel with a text, and the
text alone says which of the messages in flight is meant. Nothing here touches a connection.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import (
    AuthenticationError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from delivery.outcome import Code, Message

if TYPE_CHECKING:
    from pika.exceptions import ChannelClosedByBroker

_MAX_NAME_BYTES = 255
_PRECONDITION_FAILED = 406
_CHANNEL_CLOSED = {403: Code.ACCESS_REFUSED, 404: Code.EXCHANGE_NOT_FOUND}


@dataclass(frozen=True, kw_only=True)
class Addressed:
    """A message and where in the broker it goes."""

    message: Message
    routing_key: str
    exchange: str = ""
    """Empty: the default exchange, where the routing key is the queue's name."""


def channel_closed_code(reason: ChannelClosedByBroker) -> Code:
    """Return the outcome of the message that made the broker close a channel."""
    return _CHANNEL_CLOSED.get(reason.reply_code, Code.NACKED)


def unwritable(addressed: Addressed) -> str:
    """Say what makes a message impossible to write as AMQP, or return an empty string."""
    names = [addressed.exchange, addressed.routing_key, addressed.message.id]
    names += [name for name, _ in addressed.message.headers]
    for name in names:
        if name.isascii() and len(name) <= _MAX_NAME_BYTES:
            continue  # as nearly all are
        try:
            size_bytes = len(name.encode())
        except UnicodeEncodeError:
            return "a name in the destination is not valid Unicode"
        if size_bytes > _MAX_NAME_BYTES:
            return f"a name in the destination is longer than {_MAX_NAME_BYTES} bytes"
    if not addressed.exchange and not addressed.routing_key:
        return "the destination names neither a queue nor an exchange"
    return ""


def find_blamed(messages: Mapping[int, Addressed], reason: ChannelClosedByBroker) -> list[int]:
    """Return those of the numbered messages that the broker's complaint is about; maybe none."""
    meant = [index for index, addressed in messages.items() if _is_meant(addressed, reason)]
    # Names may hold quotes: "no exchange 'a' b'" reads like 'a' too, and the longest is the one.
    longest = max((len(messages[index].exchange) for index in meant), default=0)
    return [index for index in meant if len(messages[index].exchange) == longest]


def _is_meant(addressed: Addressed, reason: ChannelClosedByBroker) -> bool:
    """Whether the complaint may be about this message; the broker's text is all that tells.

    RabbitMQ says "no exchange 'x' in vhost …", "access to exchange 'x' …", "access to topic 'key' in
    exchange 'x' …", "message size 17 is larger than …", and cuts texts at 255 bytes with "...".
    """
    text = reason.reply_text
    if reason.reply_code == _PRECONDITION_FAILED:
        size_bytes = text.partition("message size ")[2].partition(" ")[0]
        return size_bytes == str(len(addressed.message.body))
    if "topic '" in text and not _names(text, "topic", addressed.routing_key):
        return False
    return _names(text, "exchange", addressed.exchange or "amq.default")


def _names(text: str, kind: str, name: str) -> bool:
    said = text.partition(f"{kind} '")[2]
    if said.startswith(f"{name}'"):
        return True
    return said.endswith("...") and name.startswith(said.removesuffix("..."))


def explain_open_error(error: BaseException) -> tuple[Code, str]:
    """Name the reason why no connection came about and say it in one line, without credentials."""
    for cause in _causes(error):
        if isinstance(cause, (ProbableAuthenticationError, AuthenticationError)):
            return Code.ACCESS_REFUSED, "the broker refused the user or its password"
        if isinstance(cause, ProbableAccessDeniedError):
            return Code.ACCESS_REFUSED, "the broker refused the virtual host"
        if isinstance(cause, socket.gaierror):
            return Code.DNS_ERROR, f"the broker's host could not be resolved: {cause.strerror}"
        if isinstance(cause, ssl.SSLError):
            return Code.TLS_ERROR, f"TLS with the broker failed: {cause.reason}"
        if isinstance(cause, (TimeoutError, AMQPConnectorStackTimeout)):
            return Code.TIMEOUT, "the broker did not answer in time"
        if isinstance(cause, OSError):
            return Code.CONNECTION_ERROR, f"no connection to the broker: {cause.strerror}"
    return Code.CONNECTION_ERROR, f"no connection to the broker: {type(error).__name__}"


def _causes(error: object) -> Iterator[BaseException]:
    """The innermost of pika's nested errors first, down to the socket's own."""
    if not isinstance(error, BaseException):
        return
    nested = (*getattr(error, "exceptions", ()), getattr(error, "exception", None), *error.args)
    for inner in nested:
        yield from _causes(inner)
    yield error
