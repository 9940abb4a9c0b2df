"""What came of one try at delivering one result: the values that senders return.

Senders (``webhook``, ``rabbitmq``) turn a Message into an Outcome and never raise for a receiver's
fault; ``retry.verdict`` turns an Outcome into what happens next. No Django, no Celery here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Code(enum.StrEnum):
    """Every way a try can end. Stored on the attempt; shown to the operator."""

    DELIVERED = "delivered"
    HTTP_STATUS = "http_status"
    """The receiver answered outside 2xx."""
    REDIRECT = "redirect"
    """A 3xx: a failure, never followed."""
    GONE = "gone"
    """410: the receiver asks us to stop."""
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    INVALID_ANSWER = "invalid_answer"
    """What came back was not HTTP, or its headers were beyond our caps."""
    BLOCKED_ADDRESS = "blocked_address"
    """The host resolves to an address that deliveries may not reach."""
    INVALID_DESTINATION = "invalid_destination"
    QUEUE_NOT_FOUND = "queue_not_found"
    EXCHANGE_NOT_FOUND = "exchange_not_found"
    UNROUTABLE = "unroutable"
    """The exchange took it and no queue was bound: the broker returned it."""
    NACKED = "nacked"
    ACCESS_REFUSED = "access_refused"
    BROKER_BLOCKED = "broker_blocked"
    RABBITMQ_NOT_CONFIGURED = "rabbitmq_not_configured"
    PAYLOAD_MISSING = "payload_missing"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One result on its way to one destination."""

    id: str
    """Stable over all tries and replays; webhook-id and AMQP message_id. Never contains a dot."""
    body: bytes
    """The JSON to send, exactly these bytes."""
    headers: tuple[tuple[str, str], ...] = ()
    """x-batcher-request-id and the like; signing headers are the sender's own."""
    correlation_id: str = ""
    """AMQP only: what a reply refers to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one try ended."""

    code: Code
    status: int | None = None
    """HTTP status, when there was one."""
    detail: str = ""
    """One line for the operator: no secret, no URL query, no request body."""
    answer: bytes = b""
    """The first 8 kB of what the receiver said."""
    address: str = ""
    """The address that was connected to."""
    started_at: datetime | None = None
    """By our clock; None when nothing was tried."""
    duration_s: float = 0.0
    error: str = ""
    """The class of the exception that ended the try, when one did; for whoever looks for the cause."""
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        return self.code is Code.DELIVERED


def plain(text: str) -> str:
    """Return a receiver's words as every database takes them: without NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
