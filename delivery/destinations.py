"""What a person may do to a destination: make, change, pause, resume, enable, delete it, rotate its secret.

The API and the admin call these, so both check alike. Results that are due at a destination that is paused,
disabled or deleted are held, never lost. Each deed raises Refused with a plain reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from batching.lifecycle import Actor
from batching.models import Destination, Request
from batching.models.projects import new_signing_secret, place_of
from batching.reach import InvalidDestinationError
from batching.steering import Refused
from delivery import health, outgoing
from delivery.webhook import check_headers

OVERLAP: Final = timedelta(hours=24)
"""How long the secret before a rotation signs as well, unless another time is asked for."""
MOST_OVERLAP: Final = timedelta(days=30)
MOST_DELAYS: Final = 30
LONGEST_DELAY_S: Final = 7 * 86_400
_LEAST_INLINE_BYTES, _MOST_INLINE_BYTES = 1_000, 64 * 1024 * 1024
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "timeout_s": (0.1, 300),
    "max_in_flight": (1, 256),
    "max_per_second": (0.01, 10_000),
    "max_inline_bytes": (_LEAST_INLINE_BYTES, _MOST_INLINE_BYTES),
}
"""The least and the most of each limit; none of them has to be set."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a destination as it would be saved."""

    field: str
    """Of the row; empty: all of it."""
    detail: str
    """A sentence without its subject: "must …"."""


def problems_with(destination: Destination) -> list[Problem]:
    """Return what is wrong with a destination that is to be saved; asks nobody but the database."""
    return [
        *_place_problems(destination),
        *_header_problems(destination),
        *_limit_problems(destination),
        *_twin_problems(destination),
    ]


def _place_problems(destination: Destination) -> Iterator[Problem]:
    if not destination.name.isprintable():
        yield Problem(field="name", detail="must not hold control characters")
    if destination.type == Destination.Type.WEBHOOK:
        yield from _webhook_problems(destination)
        return
    if destination.url:
        yield Problem(field="url", detail="is for webhooks")
    yield from _rabbitmq_problems(destination)


def _webhook_problems(destination: Destination) -> Iterator[Problem]:
    if destination.queue or destination.exchange or destination.routing_key:
        yield Problem(field="type", detail="has no queue, exchange or routing key as a webhook")
    try:
        outgoing.guard().check_url(destination.url)
    except InvalidDestinationError as error:
        yield Problem(field="url", detail=f"can't be used: {error}")


def _rabbitmq_problems(destination: Destination) -> Iterator[Problem]:
    d = destination
    if bool(d.queue) == bool(d.exchange):
        detail = "or an exchange with a routing key must be named, one of the two"
        yield Problem(field="queue", detail=detail)
    elif bool(d.exchange) != bool(d.routing_key):
        yield Problem(
            field="routing_key", detail="goes with an exchange, and an exchange needs one"
        )
    for field, name in {
        "queue": d.queue,
        "exchange": d.exchange,
        "routing_key": d.routing_key,
    }.items():
        if len(name.encode()) > 255 or (name and not name.isprintable()):
            detail = "must have 1 to 255 bytes without control characters"
            yield Problem(field=field, detail=detail)


def _header_problems(destination: Destination) -> Iterator[Problem]:
    headers = destination.own_headers
    if headers and destination.type != Destination.Type.WEBHOOK:
        yield Problem(field="headers", detail="are for webhooks")
    try:
        check_headers(list(headers.items()))
    except ValueError as error:
        yield Problem(field="headers", detail=f"can't be sent: {error}")


def _limit_problems(destination: Destination) -> Iterator[Problem]:
    for field, (least, most) in RANGES.items():
        value = getattr(destination, field)
        if value is not None and not least <= value <= most:  # refuses NaN too
            yield Problem(field=field, detail=f"must be from {least:,} to {most:,}")
    delays = destination.retry_delays_s
    if delays is not None and not _are_delays(delays):
        detail = (
            f"must be 1 to {MOST_DELAYS} numbers of seconds, each from 0 to {LONGEST_DELAY_S:,}"
        )
        yield Problem(field="retry_delays_s", detail=detail)


def _are_delays(value: Any) -> bool:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_DELAYS:
        return False
    numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(value) and all(
        math.isfinite(v) and 0 <= v <= LONGEST_DELAY_S for v in numbers
    )


def _twin_problems(destination: Destination) -> Iterator[Problem]:
    d = destination
    others = Destination.objects.present().filter(project=d.project_id).exclude(pk=d.pk)
    if d.name and others.filter(name=d.name).exists():
        yield Problem(field="name", detail="is the name of another destination")
    place = place_of(d.type, d.url, d.queue, d.exchange, d.routing_key)
    if twin := others.filter(fingerprint=place).first():
        yield Problem(field="", detail=f"leads to the same place as {twin.key}: change that one")


def write_headers(destination: Destination, headers: Mapping[str, str]) -> None:
    """Put headers on the row, as they are stored; not saved."""
    destination.headers = json.dumps(dict(headers)) if headers else ""


def give_secret(destination: Destination) -> str:
    """Give a new webhook the secret that signs what we send, and return it; empty for other types."""
    is_signed = destination.type == Destination.Type.WEBHOOK
    secret = new_signing_secret() if is_signed else ""
    destination.secret, destination.secret_at = secret, timezone.now() if secret else None
    return secret


def rotate_secret(destination: Destination, *, now: datetime, overlap: timedelta = OVERLAP) -> str:
    """Give a webhook a new secret and return it; until ``overlap`` is over the old one signs as well."""
    if destination.type != Destination.Type.WEBHOOK:
        raise Refused("not_a_webhook", "only webhooks are signed")
    row = _present(destination)
    before = row.secret if overlap else ""
    secret = new_signing_secret()
    row.previous_secret, row.secret, row.secret_at = before, secret, now
    row.previous_secret_until = now + overlap if before else None
    fields = ["secret", "secret_at", "previous_secret", "previous_secret_until"]
    row.save(update_fields=fields)
    destination.refresh_from_db()
    return secret


def pause(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Hold what is due here until someone resumes it."""
    row = _present(destination)
    if row.paused_at is not None:
        raise Refused("invalid_state", "already paused")
    row.paused_at, row.stop_reason = now, _signed(reason, by)
    _save_standing(row, destination)


def resume(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Send what a pause held, oldest first. One that is disabled as well has to be enabled."""
    row = _present(destination)
    if row.paused_at is None:
        is_disabled = row.disabled_at is not None
        raise Refused(
            "invalid_state", "disabled, not paused: enable it" if is_disabled else "not paused"
        )
    row.paused_at = None
    _save_standing(row, destination)


def enable(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Send to a place again that was disabled, because its receiver asked for that or never took anything."""
    row = _present(destination)
    if row.disabled_at is None:
        raise Refused("invalid_state", "not disabled")
    row.disabled_at = None
    _save_standing(row, destination)
    health.trust(row.pk)


def delete(destination: Destination, *, by: Actor, reason: str, now: datetime) -> None:
    """Take a destination away: its secrets and headers are gone, its row stays for the history.

    Refused while results are due here. A request that names it and ends later is held, and may be given
    another destination.
    """
    row = _present(destination)
    if Request.objects.filter(destination=row, due_at__isnull=False).exists():
        detail = "results are still to be delivered here: wait, or give them another destination"
        raise Refused("destination_in_use", detail)
    row.deleted_at = row.disabled_at = now
    row.stop_reason = _signed(f"deleted: {reason}" if reason else "deleted", by)
    row.name = row.headers = row.secret = row.previous_secret = ""
    row.previous_secret_until = None
    row.save()
    destination.refresh_from_db()


def _present(destination: Destination) -> Destination:
    """Return the row as it is by now, locked; call inside atomic. Refused when it is deleted."""
    row = Destination.objects.select_for_update().filter(pk=destination.pk).first()
    if row is None or row.deleted_at is not None:
        raise Refused("invalid_state", "deleted")
    return row


def _save_standing(row: Destination, shown: Destination) -> None:
    if row.paused_at is None and row.disabled_at is None:
        row.stop_reason = ""
    row.save(update_fields=["paused_at", "disabled_at", "stop_reason"])
    shown.refresh_from_db()


def _signed(reason: str, by: Actor) -> str:
    who = f" [by {by.name}]"
    return f"{reason[: 300 - len(who)]}{who}".strip()


__all__ = [
    "OVERLAP",
    "Problem",
    "delete",
    "enable",
    "give_secret",
    "pause",
    "problems_with",
    "resume",
    "rotate_secret",
    "write_headers",
]
