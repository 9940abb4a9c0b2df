"""Send events that are due: claim some, send them side by side, write down what came of each.

The clock calls ``send_due``. Events are few beside results, so this is a small loop of its own: no more than some
at each destination at a time, and a lease that is longer than any try may take. Signing, the address guard, the
retry schedule and holding what a paused destination is owed are those of results. ``replay`` makes one due again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from batching.lifecycle import Actor
from batching.models import Destination
from batching.steering import Refused
from delivery import health, outgoing, rabbitmq
from delivery.event_models import EventAttempt, EventDelivery
from delivery.intake_messages import printable
from delivery.outcome import Code, Message, Outcome
from delivery.retry import Next, Verdict, verdict

logger = logging.getLogger(__name__)

LEASE: Final = timedelta(minutes=6)
_RUN_S: Final = 60.0
_AT_ONCE, _AT_ONCE_PER_DESTINATION = 200, 20


def send_due() -> int:
    """Send every event that is due and return how many tries were made."""
    until, tries = time.monotonic() + _RUN_S, 0
    while time.monotonic() < until and (claimed := _claim(timezone.now())):
        messages = [_message(delivery) for delivery in claimed]
        outcomes = asyncio.run(_try(claimed, messages))
        for delivery, message, outcome in zip(claimed, messages, outcomes, strict=True):
            _record(delivery, message, outcome, now=timezone.now())
        tries += len(claimed)
    return tries


def replay(delivery: EventDelivery, *, by: Actor, reason: str, now: datetime) -> EventDelivery:
    """Make an event due again at one destination, with the same id. Refused while it is under way."""
    rows = EventDelivery.objects.filter(pk=delivery.pk, due_at__isnull=True)
    again = {"due_at": now, "tries": 0, "delivered_at": None, "dead_at": None}
    if not rows.update(**again, replays=F("replays") + 1):
        raise Refused("invalid_state", "it is on its way already")
    delivery.refresh_from_db()
    facts = {"event": delivery.event.key, "by": by.name, "reason": reason[:200]}
    logger.info("event to be sent again", extra=facts)
    return delivery


@transaction.atomic
def _claim(now: datetime) -> list[EventDelivery]:
    """Take what is due for a lease: at each destination some, longest due first."""
    due = EventDelivery.objects.due(now)
    places = due.order_by().values_list("destination", flat=True).distinct()
    claimed: list[EventDelivery] = []
    for place in list(places[:_AT_ONCE]):
        here = due.filter(destination=place).select_for_update(skip_locked=True, of=("self",))
        claimed += here.select_related("event", "destination")[:_AT_ONCE_PER_DESTINATION]
        if len(claimed) >= _AT_ONCE:
            break
    ids = [delivery.pk for delivery in claimed]
    EventDelivery.objects.filter(pk__in=ids).update(due_at=now + LEASE, fence=F("fence") + 1)
    for delivery in claimed:
        delivery.fence += 1
    return claimed


def _message(delivery: EventDelivery) -> Message:
    headers = [("x-batcher-event", delivery.event.type)]
    if delivery.replays:
        headers.append(("x-replay", "1"))
    event = delivery.event
    return Message(id=event.key, body=bytes(event.payload), headers=tuple(headers))


async def _try(claimed: Sequence[EventDelivery], messages: Sequence[Message]) -> list[Outcome]:
    """Send all of them side by side."""
    async with outgoing.webhook_sender() as sender:

        async def send(destination: Destination, message: Message) -> Outcome:
            if destination.type != Destination.Type.WEBHOOK:
                return await asyncio.to_thread(_publish, destination, message)
            now = timezone.now()
            endpoint = outgoing.endpoint_of(destination, now)
            return await sender.send(endpoint, message, now=now)

        tries = [send(d.destination, m) for d, m in zip(claimed, messages, strict=True)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    return [_outcome(one) for one in outcomes]


def _publish(destination: Destination, message: Message) -> Outcome:
    addressed = rabbitmq.Addressed(
        message=message,
        exchange=destination.exchange,
        routing_key=destination.queue or destination.routing_key,
    )
    return rabbitmq.publish(settings.RABBITMQ_URL, [addressed])[0]


def _outcome(ended: Outcome | BaseException) -> Outcome:
    if isinstance(ended, Outcome):
        return ended
    if not isinstance(ended, Exception):
        raise ended
    logger.error("sending failed", exc_info=ended)
    detail = "see the log of the worker"
    return Outcome(code=Code.INTERNAL_ERROR, detail=detail, error=type(ended).__name__)


@transaction.atomic
def _record(delivery: EventDelivery, message: Message, outcome: Outcome, *, now: datetime) -> None:
    """Log the try, and write what follows from it unless somebody else took the claim over."""
    number = delivery.tries + 1
    decided = verdict(outcome, number, now=now, schedule=outgoing.schedule_of(delivery.destination))
    EventAttempt.objects.create(
        delivery=delivery,
        number=number,
        is_replay=delivery.replays > 0,
        outcome=outcome.code,
        status=outcome.status,
        detail=printable(outcome.detail or decided.reason)[:500],
        answer=printable(outcome.answer.decode(errors="replace")),
        address=outcome.address[:100],
        error_class=outcome.error[:100],
        body_sha256=hashlib.sha256(message.body).hexdigest(),
        body_size=len(message.body),
        started_at=outcome.started_at,
        duration_s=outcome.duration_s,
        ended_at=now,
        next_at=decided.retry_at,
    )
    ours = EventDelivery.objects.filter(pk=delivery.pk, fence=delivery.fence)
    ours.update(tries=number, **_after(decided, now))
    if decided.disable_destination:
        health.disable(delivery.destination_id, decided.reason, now)


def _after(decided: Verdict, now: datetime) -> dict[str, datetime | None]:
    if decided.next is Next.RETRY:
        return {"due_at": decided.retry_at}
    if decided.next is Next.DEAD:
        return {"due_at": None, "dead_at": now}
    return {"due_at": None, "delivered_at": now, "dead_at": None}
