"""Try a destination without a result: a signed message of type ``ping``, by the way that results go.

The API's and the admin's test button call `ping`. It goes out whether the destination is paused or not, is
bounded by the deadline of a try, and leaves no attempt behind. Call it outside of a transaction.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

from django.conf import settings

from batching.models import Destination
from batching.models.keys import new_key
from batching.steering import Refused
from delivery import rabbitmq
from delivery.outcome import Message, Outcome
from delivery.outgoing import endpoint_of, webhook_sender


def ping(destination: Destination, *, now: datetime) -> Outcome:
    """Send the ping and return how that ended. Refused when the destination is deleted."""
    if destination.deleted_at is not None:
        raise Refused("invalid_state", "deleted")
    message = _message(destination, now)
    if destination.type == Destination.Type.WEBHOOK:
        return asyncio.run(_post(destination, message, now))
    addressed = rabbitmq.Addressed(
        message=message,
        exchange=destination.exchange,
        routing_key=destination.queue or destination.routing_key,
    )
    return rabbitmq.publish(settings.RABBITMQ_URL, [addressed])[0]


async def _post(destination: Destination, message: Message, now: datetime) -> Outcome:
    async with webhook_sender() as sender:
        return await sender.send(endpoint_of(destination, now), message, now=now)


def _message(destination: Destination, now: datetime) -> Message:
    told = {
        "type": "ping",
        "timestamp": now.isoformat(),
        "data": {"destination": destination.key, "name": destination.name},
    }
    return Message(id=new_key("ping"), body=json.dumps(told).encode())


def sentence(outcome: Outcome) -> str:
    """Say how a ping ended, in one line."""
    what = [f"{outcome.status}" if outcome.status else str(outcome.code).replace("_", " ")]
    if outcome.detail and outcome.detail != what[0]:
        what = [outcome.detail]
    at = f" from {outcome.address}" if outcome.address else ""
    return f"{', '.join(what)}{at} after {outcome.duration_s * 1000:,.0f} ms"
