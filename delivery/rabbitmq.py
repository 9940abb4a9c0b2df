"""Publish messages to RabbitMQ in one call, and say how each one ended.

For a reply, a ping or an event: the call opens a stream of its own, for pika's connections survive neither
threads nor forks, and ends with it. Results leave by the stream that ``dispatch`` keeps for a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from delivery.broker_faults import Addressed
from delivery.broker_stream import TIMEOUT_S, Stream
from delivery.outcome import Outcome

__all__ = ["Addressed", "Stream", "publish"]


def publish(
    url: str, messages: Sequence[Addressed], *, window: int = 500, timeout_s: float = TIMEOUT_S
) -> list[Outcome]:
    """Publish all and return their outcomes in the same order.

    Blocks for ``timeout_s`` at most, and a second for the goodbye. ``window`` is how many may be
    unconfirmed at a time. A broker's fault raises nothing. Safe on any thread that runs no event loop,
    after any fork.
    """
    if not messages:
        return []
    return asyncio.run(_published(url, messages, window, timeout_s))


async def _published(
    url: str, messages: Sequence[Addressed], window: int, timeout_s: float
) -> list[Outcome]:
    ended: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
    stream = Stream[int](
        url, lambda *end: ended.put_nowait(end), window=window, timeout_s=timeout_s
    )
    try:
        stream.add(enumerate(messages))
        outcomes = dict([await ended.get() for _ in messages])
    finally:
        await stream.close()
    return [outcomes[index] for index in range(len(messages))]
