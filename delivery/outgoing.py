"""How this installation sends: its guard, its terms, and what one destination asks for.

`dispatch` and the test ping build their sender and their endpoints here, so that both send alike. Reads
settings and rows; sends nothing.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings

from batching.models import Destination
from batching.overrides import effective
from batching.reach import AddressGuard
from delivery.retry import Schedule
from delivery.webhook import Endpoint, WebhookSender, WebhookTerms

_MESSAGES_IN_FLIGHT = 1_000
"""RabbitMQ confirms many at a time, so its window is wide."""


def guard() -> AddressGuard:
    """Return the guard of webhooks, as the environment says."""
    return AddressGuard.opening(
        settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS,
        ports=settings.BATCHER_WEBHOOK_PORTS,
        allows_http=settings.BATCHER_WEBHOOK_ALLOW_HTTP,
    )


def webhook_sender() -> WebhookSender:
    """Return a sender for one event loop, to be used with ``async with``."""
    return WebhookSender(guard(), WebhookTerms(ca_bundle=settings.BATCHER_WEBHOOK_CA_FILE))


def endpoint_of(destination: Destination, now: datetime) -> Endpoint:
    """Return where a webhook goes and how it is signed: by the new secret first, then one rotated out."""
    secrets = [destination.secret]
    until = destination.previous_secret_until
    if until is not None and until > now:
        secrets.append(destination.previous_secret)
    return Endpoint(
        url=destination.url,
        secrets=tuple(filter(None, secrets)),
        headers=tuple(destination.own_headers.items()),
        timeout_s=destination.timeout_s,
    )


def schedule_of(destination: Destination) -> Schedule:
    """Return when a result of this destination is tried, and how often."""
    return Schedule(
        delays_s=tuple(destination.retry_delays_s or effective("BATCHER_RETRY_DELAYS")),
        fail_fast_on_4xx=destination.fail_fast_on_4xx,
    )


def ceiling_of(destination: Destination) -> int:
    """Return how many tries may be under way there at most, over all workers."""
    if destination.max_in_flight:
        return destination.max_in_flight
    is_webhook = destination.type == Destination.Type.WEBHOOK
    return int(effective("BATCHER_DESTINATION_IN_FLIGHT")) if is_webhook else _MESSAGES_IN_FLIGHT
