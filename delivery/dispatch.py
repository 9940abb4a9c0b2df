"""Send what is due: claim, send, record, overlapped, until nothing is due or the time is up.

Webhooks leave from one event loop over kept connections, messages for RabbitMQ from a thread in one
pipelined call; the database is spoken to from a thread of its own, so the loop never waits for it. A
slow destination holds no more than its own share of the claims. Called by the delivery task; several
workers may run it at once, for the claims keep them apart (``due``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError, connections
from django.utils import timezone

from batching.models import Destination
from delivery import due, rabbitmq
from delivery.addresses import AddressGuard
from delivery.due import Claim, Parcel, Sent
from delivery.outcome import Code, Outcome
from delivery.webhook import Endpoint, WebhookSender

logger = logging.getLogger(__name__)

_RUN_S = 240.0
"""A run claims nothing new after this long; the next doorbell goes on."""
_IN_FLIGHT, _IN_FLIGHT_PER_DESTINATION = 256, 32
_CLAIMED, _CLAIMED_PER_DESTINATION = 2_000, 500
_HELD_BYTES = 64 * 1024 * 1024
_RECORDED_AT_ONCE, _RECORD_EVERY_S = 500, 0.25
_PUBLISHING = 2
"""Groups of messages that are under way to RabbitMQ, or not yet recorded, at once."""

Result = TypeVar("Result")


def send_due() -> int:
    """Send every result that is due and return how many tries were made."""
    return asyncio.run(_Dispatch().run())


class _Dispatch:
    """One run: what is claimed and under way in this process, by destination."""

    def __init__(self) -> None:
        self._database = ThreadPoolExecutor(1, thread_name_prefix="dispatch-db")
        self._brokers = ThreadPoolExecutor(_PUBLISHING, thread_name_prefix="dispatch-amqp")
        self._destinations: dict[int, Destination] = {}
        self._held: dict[int, Claim] = {}
        self._held_bytes = 0
        self._slots: dict[int, asyncio.Semaphore] = {}
        self._all_slots = asyncio.Semaphore(_IN_FLIGHT)
        # Bounded: what was sent and not yet recorded is sent again when this process dies.
        self._ended: asyncio.Queue[Sent] = asyncio.Queue(_RECORDED_AT_ONCE)
        self._publishing = asyncio.Semaphore(_PUBLISHING)
        self._under_way: set[asyncio.Task[None]] = set()
        self._tries = 0

    async def run(self) -> int:
        guard = AddressGuard.opening(settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS)
        stop_at = time.monotonic() + _RUN_S
        keeper = asyncio.create_task(self._keep_claims())
        try:
            async with WebhookSender(guard) as sender:
                while await self._round(sender, may_claim=time.monotonic() < stop_at):
                    continue
        finally:
            keeper.cancel()
            await self._in_database(connections.close_all)
            self._database.shutdown()
            self._brokers.shutdown()
        return self._tries

    async def _round(self, sender: WebhookSender, *, may_claim: bool) -> bool:
        """Claim what there is room for, and record what has ended; False when all is done."""
        claims = await self._claim() if may_claim else []
        if claims:
            await self._send(claims, sender)
        if not self._under_way and self._ended.empty():
            return False
        await self._record_some()
        return True

    async def _send(self, claims: Sequence[Claim], sender: WebhookSender) -> None:
        for group in await self._in_database(lambda: list(due.groups(claims))):
            parcels = await self._in_database(partial(due.load, group))
            loaded = {parcel.claim for parcel in parcels}
            for gone in set(group) - loaded:  # deleted while it was claimed
                del self._held[gone.request_id]
            self._start(parcels, sender)
            while self._held_bytes > _HELD_BYTES:
                await self._record_some()

    async def _claim(self) -> list[Claim]:
        now = timezone.now()
        if len(self._held) > _CLAIMED - _CLAIMED_PER_DESTINATION:
            return []
        destinations = await self._in_database(partial(due.open_destinations, now))
        self._destinations |= {d.pk: d for d in destinations}
        share = max(1, min(_CLAIMED_PER_DESTINATION, _CLAIMED // max(1, len(destinations))))
        held = Counter(c.destination_id for c in self._held.values())
        room = {d.pk: share - held[d.pk] for d in destinations}
        room = {pk: most for pk, most in room.items() if most > share // 2}
        claims = await self._in_database(partial(due.claim, room, now=now)) if room else []
        self._held |= {c.request_id: c for c in claims}
        return claims

    async def _keep_claims(self) -> None:
        """Renew what is claimed while it waits for its turn, so that a lease may be short."""
        while True:
            await asyncio.sleep(due.LEASE.total_seconds() / 3)
            try:
                renew = partial(due.renew, list(self._held), now=timezone.now())
                await self._in_database(renew)
            except DatabaseError as error:
                logger.warning("leases not renewed", extra={"error": str(error)[:200]})

    def _start(self, parcels: Sequence[Parcel], sender: WebhookSender) -> None:
        """Set every parcel on its way: webhooks one by one, RabbitMQ's all together."""
        by_type: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            self._held_bytes += len(parcel.message.body)
            destination = self._destinations[parcel.claim.destination_id]
            by_type.setdefault(destination.type, []).append(parcel)
        for parcel in by_type.pop(Destination.Type.WEBHOOK, []):
            self._spawn(self._post(parcel, sender))
        for together in by_type.values():
            self._spawn(self._publish(together))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _post(self, parcel: Parcel, sender: WebhookSender) -> None:
        destination = self._destinations[parcel.claim.destination_id]
        slots = self._slots.setdefault(
            destination.pk, asyncio.Semaphore(_IN_FLIGHT_PER_DESTINATION)
        )
        secrets = (destination.secret,) if destination.secret else ()
        endpoint = Endpoint(url=destination.url, secrets=secrets)
        async with slots, self._all_slots:
            try:
                outcome = await sender.send(endpoint, parcel.message, now=timezone.now())
            except Exception:
                logger.exception("sending failed", extra={"result": parcel.message.id})
                outcome = Outcome(code=Code.INTERNAL_ERROR, detail="see the log of the worker")
            await self._ended.put(Sent(parcel=parcel, outcome=outcome))

    async def _publish(self, parcels: Sequence[Parcel]) -> None:
        messages = [self._addressed(p) for p in parcels]
        publish = partial(rabbitmq.publish, settings.RABBITMQ_URL, messages)
        async with self._publishing:
            try:
                outcomes = await asyncio.get_running_loop().run_in_executor(self._brokers, publish)
            except Exception:
                logger.exception("publishing failed", extra={"messages": len(messages)})
                outcomes = [Outcome(code=Code.INTERNAL_ERROR, detail="see the log of the worker")]
                outcomes *= len(messages)
            for parcel, outcome in zip(parcels, outcomes, strict=True):
                await self._ended.put(Sent(parcel=parcel, outcome=outcome))

    def _addressed(self, parcel: Parcel) -> rabbitmq.Addressed:
        place = self._destinations[parcel.claim.destination_id]
        return rabbitmq.Addressed(
            message=parcel.message,
            exchange=place.exchange,
            routing_key=place.queue or place.routing_key,
        )

    async def _record_some(self) -> None:
        """Wait for a try to end, gather others for a moment, and record them together."""
        sent = [await self._ended.get()]
        gather_until = time.monotonic() + _RECORD_EVERY_S
        while self._under_way and self._ended.qsize() < _RECORDED_AT_ONCE:
            if time.monotonic() >= gather_until:
                break
            await asyncio.sleep(_RECORD_EVERY_S / 10)
        while not self._ended.empty() and len(sent) < _RECORDED_AT_ONCE:
            sent.append(self._ended.get_nowait())
        for one in sent:  # no longer renewed: recording says when they are due next
            self._held.pop(one.parcel.claim.request_id, None)
            self._held_bytes -= len(one.parcel.message.body)
        await self._in_database(partial(due.record, sent, now=timezone.now()))
        self._tries += len(sent)

    async def _in_database(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._database, work)
