"""Drive a running Batcher whose receivers misbehave, mend them, and check that nothing was lost.

    python -m benchmarks.troubled --url http://127.0.0.1:8000 --key bm_live_… --count 5000

The requests go to six places in equal parts: a receiver that answers 500 for its first minute and then
recovers, one that hangs, one that says 410, one that is well, a RabbitMQ queue, and a queue that does not
exist (the last two with RABBITMQ_URL). First the well ones have to get everything while the others fail, each
for its own reason. Then the troubles are mended as an operator would mend them, and everything has to be
delivered: each result at least once, all its copies under one id. Prints what happened when.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pika
from aiohttp import web

from benchmarks.mixed import Api

_SAY = sys.stdout.write
_REFUSES_FOR_S = 60.0
"""By the clock: the breaker sends so few tries to a receiver that refuses that no count of them ends soon."""


class Places:
    """Four receivers on 127.0.0.1: they count what they took, and misbehave until they are mended."""

    def __init__(self) -> None:
        self.taken: dict[str, Counter[str]] = defaultdict(Counter)
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.tries: Counter[str] = Counter()
        self.mended = threading.Event()
        self._recovers_at = float("inf")
        self.base = ""
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait(10)

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/{place}", self._take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await asyncio.Event().wait()

    async def _take(self, request: web.Request) -> web.Response:
        place, body = request.match_info["place"], json.loads(await request.read())
        self.tries[place] += 1
        if place == "recovering" and self._is_refusing():
            return web.Response(status=500)
        if place == "gone" and not self.mended.is_set():
            return web.Response(status=410)
        if place == "hanging" and not self.mended.is_set():
            await asyncio.sleep(60)
            return web.Response(status=503)
        self.note(place, body["custom_id"], request.headers["webhook-id"])
        return web.Response()

    def _is_refusing(self) -> bool:
        now = time.monotonic()
        self._recovers_at = min(self._recovers_at, now + _REFUSES_FOR_S)
        return now < self._recovers_at

    def note(self, place: str, custom_id: str, message_id: str) -> None:
        """Count a result that arrived."""
        self.taken[place][custom_id] += 1
        self.ids[custom_id].add(message_id)


class Queues:
    """A queue that is there and one that comes later; nothing without RABBITMQ_URL."""

    def __init__(self, run: str, places: Places) -> None:
        url = os.environ.get("RABBITMQ_URL", "")
        self._places = places
        self.names = {"queue": f"batcher.bench.{run}", "missing": f"batcher.bench.{run}.later"}
        self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel() if url else None
        self.declare("queue")

    def declare(self, name: str) -> None:
        """Make the queue."""
        if self._channel is not None:
            self._channel.queue_declare(self.names[name])

    @property
    def deliveries(self) -> dict[str, dict[str, str]]:
        """What leads to each of them."""
        if self._channel is None:
            return {}
        return {n: {"type": "rabbitmq", "rabbitmq_queue": q} for n, q in self.names.items()}

    def drain(self, *names: str) -> None:
        """Take what has arrived."""
        for name in names if self._channel is not None else ():
            while True:
                frame, properties, body = self._channel.basic_get(self.names[name], auto_ack=True)
                if frame is None:
                    break
                self._places.note(name, json.loads(body)["custom_id"], properties.message_id)

    def close(self) -> None:
        """Remove the queues."""
        for name in self.names.values() if self._channel is not None else ():
            self._channel.queue_delete(name)


class Drive:
    """One run against one server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._run = uuid.uuid4().hex[:8]
        self._api = Api(options.url, options.key)
        self._places = Places()
        self._queues = Queues(self._run, self._places)
        self._seconds = options.seconds
        self._deliveries = {
            name: {"type": "webhook", "webhook_url": f"{self._places.base}/{name}"}
            for name in ("healthy", "recovering", "hanging", "gone")
        } | self._queues.deliveries
        names = list(self._deliveries)
        self._goes_to = {f"{self._run}-{n}": names[n % len(names)] for n in range(options.count)}
        self._expected = Counter(self._goes_to.values())
        self._began = time.monotonic()

    def drive(self) -> bool:
        """Send, watch, mend, watch; True when all arrived, each under one id."""
        self._post()
        self._until("the well ones have everything", lambda: not self._lacking("healthy", "queue"))
        self._until("the recovered one has too", lambda: not self._lacking("recovering"))
        self._tell()
        self._mend()
        self._until("everyone has everything", lambda: not self._lacking(*self._deliveries))
        self._tell()
        is_whole = not self._lacking(*self._deliveries)
        self._queues.close()
        twice = [one for one, ids in self._places.ids.items() if len(ids) != 1]
        _SAY(f"{len(twice)} results under more than one id\n")
        return is_whole and not twice

    def _post(self) -> None:
        lines = [
            {
                "custom_id": custom_id,
                "url": "/v1/responses",
                "method": "POST",
                "body": {"model": "gpt-5-mini", "input": f"What is {custom_id}?"},
                "delivery_config": self._deliveries[name],
                "max_wait_s": 0,
            }
            for custom_id, name in self._goes_to.items()
        ]
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        answer = json.loads(self._api.call("/api/requests/bulk", data))
        self._say(f"taken: {answer['accepted']:,}")

    def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if time.monotonic() - self._began > self._seconds:
                self._tell()
                raise SystemExit(f"gave up waiting until {what}")
            time.sleep(0.25)
        self._say(what)

    def _lacking(self, *names: str) -> dict[str, int]:
        self._queues.drain(*(n for n in names if n in self._queues.names))
        lacking = {n: self._expected[n] - len(self._places.taken[n]) for n in names}
        return {name: count for name, count in lacking.items() if count}

    def _destinations(self) -> dict[str, dict[str, Any]]:
        """Return the destinations of this run, by our names for them."""
        found, cursor = {}, ""
        while True:
            page = json.loads(self._api.call(f"/api/destinations?limit=100&cursor={cursor}"))
            for one in page["data"]:
                for name, config in self._deliveries.items():
                    if one["delivery_config"] == config:
                        found[name] = one
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def _mend(self) -> None:
        """Do what an operator would: bring the receivers up, enable what was disabled, send again."""
        self._places.mended.set()
        if "missing" in self._deliveries:
            self._queues.declare("missing")
        for name, place in self._destinations().items():
            if place["state"] == "disabled":
                self._api.call(
                    f"/api/destinations/{place['id']}/enable",
                    b"{}",
                    content_type="application/json",
                )
                self._say(f"{name} enabled")
        self._redeliver()

    def _redeliver(self) -> None:
        """Send again what was given up, place by place."""
        self._say(f"{len(self._states()['delivery_failed']):,} given up")
        for name, place in self._destinations().items():
            order = {"filter": {"destination": place["id"]}, "reason": "the receiver was mended"}
            told = self._api.call(
                "/api/replays", json.dumps(order).encode(), content_type="application/json"
            )
            replay = json.loads(told)
            while replay["state"] == "running":
                time.sleep(0.25)
                replay = json.loads(self._api.call(f"/api/replays/{replay['id']}"))
            self._say(f"{name}: {replay['done']:,} of {replay['matched']:,} sent again")

    def _states(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        cursor = ""
        while True:
            page = json.loads(
                self._api.call(f"/api/requests?q={self._run}&limit=100&cursor={cursor}")
            )
            for one in page["data"]:
                found[one["state"]].append(one["custom_id"])
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def _tell(self) -> None:
        """Print how every place stands."""
        standing = self._destinations()
        for name in self._deliveries:
            taken = self._places.taken[name]
            twice = sum(count > 1 for count in taken.values())
            place = json.loads(self._api.call(f"/api/destinations/{standing[name]['id']}"))
            said = {k: place[k] for k in ("state", "stop_reason", "health")}
            _SAY(
                f"  {name}: {len(taken):,} of {self._expected[name]:,} arrived, {twice:,} more than once,"
                f" {self._places.tries[name]:,} webhook tries; {said}\n"
            )
        _SAY(f"  states: { {k: len(v) for k, v in self._states().items()} }\n")

    def _say(self, text: str) -> None:
        _SAY(f"{time.monotonic() - self._began:7.1f} s  {text}\n")
        sys.stdout.flush()


def main() -> None:
    """Read the command line and drive."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", required=True)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=1_200, help="give up after so long")
    sys.exit(0 if Drive(parser.parse_args()).drive() else 1)


if __name__ == "__main__":
    main()
