"""A broker in a folder: `make run` needs no server to be installed.

Decides how messages lie on disk. kombu loads it for `embedded://`; `batcher/celery.py` takes its settings
and holds its lock. A message is a file that appears whole in its queue's folder, moves to `claimed/` while
a worker has it, and is removed when the worker says it is done; what a killed worker had claimed goes back
when the next one starts. Any number of processes send; exactly one worker process takes.
Not fast and not meant to be: few messages, each a doorbell for work that the database knows of.
See docs/decisions/0001-embedded-broker.md.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import defaultdict, deque
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

POLLING_S = 0.02
"""How often an idle worker looks into the folders of its queues."""


_PATIENCE_S = 0.25


class _ClaimingQoS(virtual.QoS):
    """Removes a message's file once the worker has acknowledged it."""

    channel: Channel

    def ack(self, delivery_tag: str) -> None:
        self.channel.forget(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001,FBT002  # kombu's
        super().reject(delivery_tag, requeue)
        self.channel.forget(delivery_tag)


class Channel(virtual.Channel):
    """Puts messages into folders and takes them out again, oldest first."""

    QoS = _ClaimingQoS
    supports_fanout = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options: dict[str, Any] = self.connection.client.transport_options  # type: ignore[union-attr,assignment]  # set by now
        self._folder = Path(options["folder"])
        self._seen: defaultdict[str, deque[str]] = defaultdict(deque)
        self._claimed: dict[str, Path] = {}

    def forget(self, delivery_tag: str) -> None:
        """Remove the file of a message that is done; unknown ones are done already."""
        path = self._claimed.pop(delivery_tag, None)
        if path is not None:
            path.unlink(missing_ok=True)

    def _put(self, queue: str, message: dict[str, Any], **_options: Any) -> None:
        folder = _ready_folder(self._folder / queue)
        name = f"{time.time_ns():020d}.{message['properties']['delivery_tag']}"
        draft = _ready_folder(self._folder / "drafts") / name
        draft.write_text(dumps(message), encoding="utf-8")
        draft.rename(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        seen = self._seen[queue]
        if not seen:
            seen.extend(_names(self._folder / queue))
        claimed = self._folder / "claimed" / queue
        while seen:
            name = seen.popleft()
            try:
                (self._folder / queue / name).rename(_ready_folder(claimed) / name)
            except FileNotFoundError:
                continue  # purged since the folder was read
            message: dict[str, Any] = loads((claimed / name).read_text(encoding="utf-8"))
            self._claimed[message["properties"]["delivery_tag"]] = claimed / name
            return message
        raise Empty

    def _restore(self, message: Any) -> None:
        super()._restore(message)
        self.forget(message.delivery_tag)

    def _size(self, queue: str) -> int:
        return len(_names(self._folder / queue))

    def _purge(self, queue: str) -> int:
        names = _names(self._folder / queue)
        for name in names:
            (self._folder / queue / name).unlink(missing_ok=True)
        return len(names)


class Transport(virtual.Transport):
    """kombu's entrance to the folder."""

    Channel = Channel
    driver_type = "embedded"
    driver_name = "embedded"
    polling_interval = POLLING_S
    default_connection_params: ClassVar[dict[str, Any]] = {}  # there is no host to fall back on

    def drain_events(  # type: ignore[override]  # celery-types' two bases disagree
        self, connection: Any, timeout: float | None = None
    ) -> None:
        """Deliver one message; give up early, so that a worker soon notices that it should end."""
        patience_s = None if timeout is None else min(timeout, _PATIENCE_S)
        super().drain_events(connection, timeout=patience_s)

    def driver_version(self) -> str:
        """Return the version of the layout on disk."""
        return "1"


TRANSPORT_ALIASES["embedded"] = f"{__name__}:Transport"


def celery_settings(folder: Path) -> dict[str, Any]:
    """Return the Celery settings for the broker in `folder`."""
    return {
        "broker_url": "embedded://",
        "broker_transport_options": {"folder": str(folder)},
        "worker_pool": "threads",
    }


def hold_worker_lock(folder: Path) -> None:
    """Be the one worker of `folder` until this process ends, and put back what a dead one had claimed.

    Raises ImproperlyConfigured when another worker has it.
    """
    # Never closed: the kernel lets go of it when the process ends, in whatever way.
    lock = os.open(_ready_folder(folder) / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(lock)
        raise ImproperlyConfigured(
            f"another worker uses the embedded broker in {str(folder)!r}; it serves only one: "
            "set CELERY_BROKER_URL to RabbitMQ or Redis to run more"
        ) from problem
    _put_back_claimed(folder)


def _put_back_claimed(folder: Path) -> None:
    for path in sorted((folder / "claimed").glob("*/*")):
        path.rename(_ready_folder(folder / path.parent.name) / path.name)


def _names(folder: Path) -> list[str]:
    """Return the names of the messages in `folder`, oldest first."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _ready_folder(folder: Path) -> Path:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
