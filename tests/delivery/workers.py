"""Dispatches in a thread and in processes of their own, a receiver with a gate, and what became of the results."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from django.conf import settings as installed
from django.db import connection, connections
from django.utils import timezone

from batching.models import Destination, Request
from batching.models.projects import new_signing_secret
from delivery import dispatch
from delivery.models import DestinationHealth
from tests.batching.rows import a_destination
from tests.delivery.results import a_result
from tests.wiring.processes import ROOT, environment, running, wait_for

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Gate:
    """A receiver's script: takes requests, answers none before it is opened, counts those inside."""

    def __init__(self, *, is_open: bool = False, delay_s: float = 0) -> None:
        self._opened = threading.Event()
        self._delay_s = delay_s
        self.inside = self.most = 0
        if is_open:
            self.open()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, visit) -> None:
        while await visit.request():
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(self._delay_s)
            while not self._opened.is_set():
                await asyncio.sleep(0.01)
            self.inside -= 1
            await visit.say(OK)


def place_at(receiver, count, **fields) -> Destination:
    place = a_destination(url=receiver.url("/hook"), secret=new_signing_secret(), **fields)
    add_results(place, count)
    return place


def add_results(place, count):
    for _ in range(count):
        a_result(place, due_at=timezone.now() - timedelta(seconds=1))


def states(*places) -> Counter[str]:
    rows = Request.objects.filter(destination__in=places)
    return Counter(rows.values_list("state", flat=True))


@contextlib.contextmanager
def dispatching():
    """Run a dispatch in a thread for the length of the block, and wait for its end."""

    def run() -> int:
        try:
            return dispatch.send_due()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        run_ = pool.submit(run)
        yield run_
        run_.result(timeout=60)


def another_process(tmp_path, script="dispatching.py", **more):
    """Run a worker's dispatch as another process on this database; ``more`` is environment."""
    tmp_path.mkdir(exist_ok=True)
    name = connection.settings_dict["NAME"]
    kept = connection.settings_dict
    at = f"{kept['USER']}:{kept['PASSWORD']}@{kept['HOST']}:{kept['PORT'] or 5432}"
    is_sqlite = connection.vendor == "sqlite"
    env = environment(
        tmp_path,
        DATABASE_URL=f"sqlite:///{name}" if is_sqlite else f"postgresql://{at}/{name}",
        BATCHER_ENCRYPTION_KEYS=",".join(installed.BATCHER_ENCRYPTION_KEYS),
        BATCHER_ALLOW_PRIVATE_DESTINATIONS="127.0.0.0/8",
        **more,
    )
    return running(str(ROOT / "tests" / "delivery" / script), env=env, log=tmp_path / "log")


def until(condition, what):
    wait_for(condition, timeout_s=45, what=what)


def end_waits():
    """Let the time of each next try come, and no circuit be open any more."""
    ago = timezone.now() - timedelta(seconds=1)
    Request.objects.filter(due_at__isnull=False).update(due_at=ago)
    DestinationHealth.objects.filter(open_until__isnull=False).update(open_until=ago)


def end_leases():
    """Let a minute pass for whatever a dead worker had."""
    Request.objects.filter(due_at__isnull=False).update(
        due_at=timezone.now() - timedelta(seconds=1)
    )
    for row in DestinationHealth.objects.all():
        row.senders = {name: [slots, 0] for name, (slots, _) in row.senders.items()}
        row.save()
