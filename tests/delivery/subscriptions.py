"""Destinations that are told of events, and events that are due at them."""

from __future__ import annotations

from datetime import datetime

from delivery.event_models import Event, EventDelivery, EventSubscription, EventType
from tests.batching.rows import NOW, a_destination, a_project


def a_subscription(*types: str, destination=None, **fields) -> EventSubscription:
    """Subscribe a destination to these types, to all of them when none is named."""
    place = destination or a_destination(**fields)
    wanted = sorted(types or EventType.values)
    return EventSubscription.objects.create(destination=place, types=wanted)


def an_event_due(destination, *, at: datetime = NOW, **fields) -> EventDelivery:
    """Return an event that is due there."""
    facts = {"type": EventType.BATCH_COMPLETED, "subject": "bat_1", "occurred_at": NOW}
    payload = b'{"type":"batch.completed","timestamp":"2026-11-21T12:00:00.000Z","data":{}}'
    event = Event.objects.create(
        project=destination.project or a_project(), payload=payload, **facts
    )
    return EventDelivery.objects.create(event=event, destination=destination, due_at=at, **fields)
