"""The road that the clock drives: every phase in its order, in rounds, with time that can be moved ahead.

Calls the functions that the Celery tasks call, so that a test sees what a worker would do, and decides
when. The time is this process's: ``now`` is what the API and the senders read too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from batching import adoption, closing, collection, packing, submission
from batching.lifecycle import BatchState
from batching.models import Batch, Request
from delivery import dispatch

PHASES: dict[str, Callable[[datetime], int]] = {
    "pack": packing.pack,
    "upload": submission.upload_due,
    "submit": submission.submit_due,
    "adopt": adoption.adopt_due,
    "poll": collection.poll_due,
    "collect": collection.collect_due,
    "send": lambda _now: dispatch.send_due(),
    "close": closing.close_due,
}
TO_THE_PROVIDER = ("pack", "upload", "submit")
_SOON = timedelta(seconds=2)
_ON_ITS_WAY = (
    *(BatchState.UPLOADING, BatchState.UPLOADED, BatchState.PROCESSING, BatchState.CANCELLING),
    *(BatchState.COMPLETED, BatchState.EXPIRED, BatchState.CANCELLED, BatchState.DOWNLOADING),
)


class Road:
    """Drives everything that waits in this test's database."""

    def __init__(self, real_now: Callable[[], datetime]) -> None:
        self._real_now, self._ahead = real_now, timedelta()

    def now(self) -> datetime:
        return self._real_now() + self._ahead

    def later(self, **span: float) -> None:
        """Let time pass, in the words of timedelta."""
        self._ahead += timedelta(**span)

    def step(self, *phases: str) -> int:
        """Take these phases once, in their order; return how much they did."""
        return sum(PHASES[name](self.now()) for name in phases)

    def run(self, *, timeout_s: float = 20) -> None:
        """Take rounds until nothing more happens without time passing (a retry, a backoff)."""
        self.until(lambda: False, or_quiet=True, timeout_s=timeout_s)

    def until(
        self,
        question: Callable[[], bool],
        *,
        by: Iterable[str] = PHASES,
        or_quiet: bool = False,
        timeout_s: float = 20,
    ) -> None:
        """Take rounds, of all phases or of these, until the question is answered with yes."""
        deadline, pause = time.monotonic() + timeout_s, threading.Event()
        while not question():
            if not self.step(*by) and not self._skip_to_next_look() and or_quiet:
                return
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {_where_all_is()}"
            pause.wait(0.01)

    def _skip_to_next_look(self) -> bool:
        """Pass the seconds until a batch is looked at again; the provider needs none of them."""
        soon = self.now() + _SOON
        coming = Batch.objects.filter(state__in=_ON_ITS_WAY, next_attempt_at__lte=soon)
        at = coming.order_by("next_attempt_at").values_list("next_attempt_at", flat=True).first()
        if at is not None:
            self._ahead += max(timedelta(), at - self.now())
        return at is not None


def _where_all_is() -> dict[str, Counter[str]]:
    rows = {"batches": Batch.objects.all(), "requests": Request.objects.all()}
    return {name: Counter(all_.values_list("state", flat=True)) for name, all_ in rows.items()}
