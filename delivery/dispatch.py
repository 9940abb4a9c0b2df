"""Send what is due: claim, send, record, overlapped, until nothing is due or the time is up.

Webhooks and messages for RabbitMQ leave from one event loop over kept connections; the database is
spoken to from threads of its own, so the loop never waits for it: one claims and reads, and on
PostgreSQL others record meanwhile, for each waits for its server most of the time.
``turns`` says what may be claimed and how much of it may be under way, over all workers; ``flights``
keeps to it here, so a destination that hangs holds up nobody else. Called by the delivery task.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError, connection, connections
from django.utils import timezone

from batching.models import Destination
from delivery import due, rabbitmq, turns
from delivery.due import Claim, Parcel, Sent
from delivery.flights import Flights
from delivery.outcome import Code, Outcome
from delivery.outgoing import endpoint_of, webhook_sender
from delivery.posting import Line
from delivery.turns import Held
from delivery.webhook import Endpoint, WebhookSender

logger = logging.getLogger(__name__)

_RUN_S = 240.0
"""A run claims nothing new after this long; the next doorbell goes on."""
_IN_FLIGHT, _UNCONFIRMED = 640, 2_000
"""Webhooks and messages under way from this process, to all destinations."""
_HELD_BYTES = 64 * 1024 * 1024
_RECORDED_AT_ONCE = 1_000
_RECORDERS = 2
"""Records at a time, each for its own results; they meet only at the row of a destination's health, their last step."""
_RECORD_FIRST_S, _RECORD_EVERY_S = 0.02, 0.25
"""How long tries that ended are gathered, the first ones and later: of a new destination nothing is claimed ahead
before a first word of it is recorded."""
_LOOK_EVERY_S = 0.5
"""How long a run goes on without looking for what else is due."""
_LEAST_PAUSE_S = 0.05
_FAULT = Outcome(code=Code.INTERNAL_ERROR, detail="see the log of the worker")

Result = TypeVar("Result")

_running = threading.Lock()
_asked = threading.Event()


def send_due() -> int:
    """Send every result that is due and return how many tries were made.

    One run at a time in a process: who asks meanwhile returns 0 at once, and the run goes on for him.
    """
    _asked.set()
    tries = 0
    while _asked.is_set() and _running.acquire(blocking=False):
        try:
            _asked.clear()
            tries += asyncio.run(_Dispatch().run())
        finally:
            _running.release()
    return tries


class _Dispatch:
    """One run: what is claimed and under way in this process, by destination."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex[:12]
        self._database = _a_thread("db")
        self._recorders = [self._database]
        if connection.vendor == "postgresql":  # SQLite takes one writer at a time
            self._recorders = [_a_thread("records") for _ in range(_RECORDERS)]
        self._destinations: dict[int, Destination] = {}
        self._endpoints: dict[int, Endpoint | Outcome] = {}
        self._held: dict[int, Claim] = {}
        self._held_bytes = self._recording = 0
        self._to_load = 0
        """Claimed, and its messages not read yet."""
        self._flights: Flights[Parcel] = Flights(_IN_FLIGHT)
        self._messages: Flights[Parcel] = Flights(_UNCONFIRMED)
        self._ways = (self._flights, self._messages)
        self._stream: rabbitmq.Stream[Parcel]
        self._confirmed: asyncio.Queue[Sent] = asyncio.Queue()
        """How messages ended: no more than were under way."""
        self._workers: list[asyncio.Task[None]] = []
        # Bounded: what was sent and not yet recorded is sent again when this process dies.
        self._ended: asyncio.Queue[Sent] = asyncio.Queue(_RECORDED_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._shared: set[int] = set()
        self._moved = asyncio.Event()
        """Something landed or was recorded: there may be room."""
        self._ends = self._enough_ends = 0
        """Tries that ended or were recorded so far, and at which figure the next turn pays."""
        self._tries = 0

    async def run(self) -> int:
        keeper = asyncio.create_task(self._keep_claims())
        self._stream = rabbitmq.Stream(settings.RABBITMQ_URL, self._on_ended, window=_UNCONFIRMED)
        recording = [self._record_all(thread) for thread in self._recorders]
        for work in (*recording, self._land_messages()):
            worker = asyncio.create_task(work)
            worker.add_done_callback(lambda _: self._moved.set())
            self._workers.append(worker)
        try:
            async with webhook_sender() as sender:
                await self._feed(sender)
        finally:
            for task in (keeper, *self._workers):
                task.cancel()
            try:
                await self._stream.close()
                leave = partial(turns.leave, self._name, list(self._shared), now=timezone.now())
                await self._in_database(leave)
            finally:
                for thread in {self._database, *self._recorders}:
                    await self._in_database(connections.close_all, thread)
                    thread.shutdown()
        return self._tries

    async def _feed(self, sender: WebhookSender) -> None:
        """Take turns while there is something to send, and wait for the last of it to be recorded."""
        stop_at = time.monotonic() + _RUN_S
        while True:
            may_claim = time.monotonic() < stop_at
            ends = self._ends
            again_in_s = await self._turn(sender, may_claim=may_claim)
            for worker in self._workers:
                if worker.done():
                    worker.result()
            if self._held or self._recording:
                await self._until_there_is_room()
            elif self._ends > ends and may_claim:
                continue  # the turn may have passed over what was being recorded just then
            elif again_in_s is None or not may_claim:
                return
            else:
                await asyncio.sleep(min(max(again_in_s, _LEAST_PAUSE_S), _LOOK_EVERY_S))

    async def _until_there_is_room(self) -> None:
        """Wait until a good part of what was taken has ended or been recorded, or a moment has passed."""
        until = time.monotonic() + _LOOK_EVERY_S
        while (self._held or self._recording) and not any(w.done() for w in self._workers):
            left_s = until - time.monotonic()
            if left_s <= 0 or (self._ends >= self._enough_ends and not self._held_too_much()):
                return
            await self._wait_for_movement(left_s)

    def _note_ends(self, count: int) -> None:
        self._ends += count
        if self._ends >= self._enough_ends:
            self._moved.set()

    async def _wait_for_movement(self, most_s: float) -> None:
        self._moved.clear()
        try:
            await asyncio.wait_for(self._moved.wait(), most_s)
        except TimeoutError:
            return

    def _held_too_much(self) -> bool:
        return self._held_bytes > _HELD_BYTES

    async def _turn(self, sender: WebhookSender, *, may_claim: bool) -> float | None:
        """Share out, claim, and set what was claimed on its way; returns when a rate allows more."""
        take = partial(
            turns.take,
            self._name,
            self._holdings(),
            now=timezone.now(),
            may_claim=may_claim and not self._held_too_much(),
        )
        ends = self._ends
        turn = await self._in_database(take)
        self._held |= {c.request_id: c for c in turn.claims}
        self._enough_ends = ends + (len(turn.claims) // 2 or len(self._held) // 4 or 1)
        self._shared = (self._shared - turn.slots.keys()) | turn.shared
        self._note_places(turn.destinations, timezone.now())
        for pk, slots in turn.slots.items():
            for way in self._ways:
                way.allow(pk, slots)
            if not slots and pk not in turn.destinations:
                await self._give_back(pk)
        await self._load(turn.claims, sender)
        return turn.again_in_s

    def _holdings(self) -> dict[int, Held]:
        claimed = Counter(c.destination_id for c in self._held.values())
        return {
            pk: Held(claimed=claimed[pk], flying=self._may_fly(pk, claimed[pk]))
            for pk in {*claimed, *self._shared}
        }

    def _may_fly(self, pk: int, claimed: int) -> int:
        """Return what is under way there, or will be before the next turn is known."""
        return max(max(way.flying(pk), min(way.slots(pk), claimed)) for way in self._ways)

    def _note_places(self, places: dict[int, Destination], now: datetime) -> None:
        self._destinations |= places
        for pk, place in places.items():
            try:
                self._endpoints[pk] = endpoint_of(place, now)
            except ValueError as error:
                self._endpoints[pk] = Outcome(code=Code.INVALID_DESTINATION, detail=str(error))

    async def _give_back(self, destination_id: int) -> None:
        """Give back what waits for a destination that may not be sent to any more."""
        parcels = [parcel for way in self._ways for parcel in way.withdraw(destination_id)]
        if not parcels:
            return
        claims = [parcel.claim for parcel in parcels]
        for parcel in parcels:
            self._drop(parcel)
        reason = "not sent: the destination is held or its circuit open"
        await self._in_database(partial(due.give_back, claims, reason=reason, now=timezone.now()))

    async def _load(self, claims: Sequence[Claim], sender: WebhookSender) -> None:
        if not claims:
            return
        self._to_load = len(claims)
        for group in await self._in_database(lambda: list(due.groups(claims))):
            parcels = await self._in_database(partial(due.load, group))
            self._to_load -= len(group)
            loaded = {parcel.claim for parcel in parcels}
            for gone in set(group) - loaded:  # deleted while it was claimed
                del self._held[gone.request_id]
            self._start(parcels, sender)
            await self._until_less_is_held(sender)

    async def _until_less_is_held(self, sender: WebhookSender) -> None:
        """Wait for memory to read more into, and hear meanwhile of places that are held or slowed."""
        look_at = time.monotonic() + _LOOK_EVERY_S
        while self._held_too_much():
            await self._wait_for_movement(_LOOK_EVERY_S)
            if time.monotonic() >= look_at:
                await self._turn(sender, may_claim=False)
                look_at = time.monotonic() + _LOOK_EVERY_S

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
        """Let each wait for a slot, and let go what has one."""
        for parcel in parcels:
            self._held_bytes += len(parcel.message.body)
            pk = parcel.claim.destination_id
            is_webhook = self._destinations[pk].type == Destination.Type.WEBHOOK
            (self._flights if is_webhook else self._messages).put(pk, parcel)
        self._fly(sender)
        self._publish()

    def _fly(self, sender: WebhookSender) -> None:
        for pk, parcel in self._flights.start():
            self._spawn(self._post(pk, parcel, sender))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _post(self, pk: int, parcel: Parcel, sender: WebhookSender) -> None:
        """Post, and go on with what may leave in its place: one flight after the other is one task."""
        with sender.line() as line:
            while True:
                outcome = await self._try(pk, parcel, sender, line)
                await self._ended.put(Sent(parcel=parcel, outcome=outcome))
                self._flights.land(pk)
                self._note_ends(1)
                started = self._flights.start()
                if not started:
                    return
                (pk, parcel), *others = started
                for other_pk, other in others:
                    self._spawn(self._post(other_pk, other, sender))

    async def _try(self, pk: int, parcel: Parcel, sender: WebhookSender, line: Line) -> Outcome:
        target = self._endpoints[pk]
        if isinstance(target, Outcome):
            return target
        try:
            return await sender.send(target, parcel.message, now=timezone.now(), line=line)
        except Exception:
            logger.exception("sending failed", extra={"result": parcel.message.id})
            return _FAULT

    def _publish(self) -> None:
        """Let go the messages that have a slot; how each ended is told to ``_on_ended``."""
        started = self._messages.start()
        if started:
            self._stream.add([(parcel, self._addressed(parcel)) for _, parcel in started])

    def _on_ended(self, parcel: Parcel, outcome: Outcome) -> None:
        self._confirmed.put_nowait(Sent(parcel=parcel, outcome=outcome))

    async def _land_messages(self) -> None:
        """Hand on how messages ended, and let as many leave in their place."""
        while True:
            ended = [await self._confirmed.get()]
            while not self._confirmed.empty():
                ended.append(self._confirmed.get_nowait())
            for sent in ended:
                await self._ended.put(sent)
                self._messages.land(sent.parcel.claim.destination_id)
            self._note_ends(len(ended))
            self._publish()

    def _addressed(self, parcel: Parcel) -> rabbitmq.Addressed:
        place = self._destinations[parcel.claim.destination_id]
        return rabbitmq.Addressed(
            message=parcel.message,
            exchange=place.exchange,
            routing_key=place.queue or place.routing_key,
        )

    async def _record_all(self, thread: ThreadPoolExecutor) -> None:
        """Record what has ended, many together, until the run is over."""
        gather_s = _RECORD_FIRST_S
        while True:
            sent = await self._gathered(gather_s)
            gather_s = min(2 * gather_s, _RECORD_EVERY_S)
            for one in sent:  # no longer renewed: recording says when they are due next
                self._drop(one.parcel)
            self._recording += len(sent)
            record = partial(due.record, sent, now=timezone.now())
            await self._in_database(record, thread)
            self._tries += len(sent)
            self._recording -= len(sent)
            self._note_ends(len(sent))
            self._moved.set()

    async def _gathered(self, most_s: float) -> list[Sent]:
        """Return what has ended: when it is many, when nothing else is under way, or after a while."""
        sent = [await self._ended.get()]
        until = time.monotonic() + most_s
        while self._is_busy() and self._ended.qsize() < _RECORDED_AT_ONCE:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(min(left_s, _RECORD_FIRST_S))
        while not self._ended.empty() and len(sent) < _RECORDED_AT_ONCE:
            sent.append(self._ended.get_nowait())
        return sent

    def _is_busy(self) -> bool:
        """Tell whether more is about to end; a record of many costs each of them less."""
        return bool(self._to_load or self._under_way or self._messages.in_air)

    def _drop(self, parcel: Parcel) -> None:
        self._held.pop(parcel.claim.request_id, None)
        self._held_bytes -= len(parcel.message.body)

    async def _in_database(
        self, work: Callable[[], Result], thread: ThreadPoolExecutor | None = None
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread or self._database, work)


def _a_thread(name: str) -> ThreadPoolExecutor:
    """Return a thread with a connection to the database of its own, which nobody else closes."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"dispatch-{name}")
