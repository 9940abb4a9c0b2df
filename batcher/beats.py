"""Signs of life: each process writes every few seconds that it lives, what it did last, and how much memory it has.

Decides when and what; the panel's page *Workers and queues* shows it. A thread of its own writes, so a process that
is busy still beats; what it finished is noted in memory, for that must cost nothing. A database that is away is no
reason to end: the next beat comes.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import tomllib
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

logger = logging.getLogger(__name__)

EVERY_S: Final = 15.0
_PAGE_BYTES: Final = 4_096
_hearts: list[Heart] = []


class Heart(threading.Thread):
    """Beats for this process until it ends."""

    def __init__(self, kind: str) -> None:
        super().__init__(name="heart", daemon=True)
        self.kind, self.pid, self.host = kind, os.getpid(), socket.gethostname()[:255]
        self._started_at = timezone.now()
        self._stopped = threading.Event()
        self._progress: tuple[datetime | None, str] = (None, "")

    def run(self) -> None:
        """Beat at once, and again and again."""
        self.beat()
        while not self._stopped.wait(EVERY_S):
            self.beat()

    def note(self, what: str) -> None:
        """Remember what was just finished; written with the next beat."""
        self._progress = (timezone.now(), what[:100])

    def beat(self) -> None:
        """Write one sign of life; one that can't be written is left out."""
        from batching.models import Beat

        progress_at, progress = self._progress
        facts = {
            "version": code_version(),
            "started_at": self._started_at,
            "seen_at": timezone.now(),
            "progress_at": progress_at,
            "progress": progress,
            "memory_bytes": memory_bytes(),
        }
        try:
            Beat.objects.update_or_create(
                kind=self.kind, host=self.host, pid=self.pid, defaults=facts
            )
        except DatabaseError as problem:
            logger.info("sign of life not written", extra={"error": type(problem).__name__})
        finally:
            connection.close()  # held for a moment each time, not for good

    def stop(self) -> None:
        """End in peace: take the row away, so that nobody looks for this process."""
        from batching.models import Beat

        if self._stopped.is_set():
            return
        self._stopped.set()
        with suppress(DatabaseError):
            Beat.objects.filter(kind=self.kind, host=self.host, pid=self.pid).delete()


def start(kind: str) -> Heart:
    """Begin to beat for this process; it ends in peace when the interpreter does."""
    heart = Heart(kind)
    _hearts.append(heart)
    heart.start()
    atexit.register(heart.stop)
    return heart


def note(what: str) -> None:
    """Remember what this process just finished, if it beats."""
    for heart in _hearts:
        heart.note(what)


def kind() -> str:
    """Return as what this process beats; empty when it does not."""
    return _hearts[0].kind if _hearts else ""


def stop() -> None:
    """End in peace."""
    for heart in _hearts:
        heart.stop()


def memory_bytes() -> int | None:
    """Return the resident memory of this process; None where /proc does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * _PAGE_BYTES


@cache
def code_version() -> str:
    """Return the version of this code, with the commit when it is a checkout: ``0.1.0 (1a2b3c4)``."""
    base = Path(settings.BASE_DIR)
    try:
        project = tomllib.loads((base / "pyproject.toml").read_text(encoding="utf-8"))
        version = str(project["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"
    commit = _commit(base / ".git")
    return f"{version} ({commit})" if commit else version


def _commit(folder: Path) -> str:
    with suppress(OSError):
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head[:7]
        return (folder / head.removeprefix("ref: ")).read_text(encoding="utf-8")[:7]
    return ""


__all__ = ["EVERY_S", "Heart", "code_version", "kind", "memory_bytes", "note", "start", "stop"]
