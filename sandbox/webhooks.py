"""Tells a URL that a batch ended, as OpenAI's webhooks do: thin, signed, and again when it was not heard.

The engine notes each batch that ends while it works in its thread, and lets send() go from the event loop. What
could not be said after a few tries is forgotten: whoever listens has to poll as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from datetime import UTC, datetime

import aiohttp
import msgspec
from standardwebhooks.webhooks import Webhook as Signer

from sandbox.errors import is_anthropic
from sandbox.objects import FINAL, Batch
from sandbox.scenario import Webhook

logger = logging.getLogger(__name__)

_PAUSES_S = (0.0, 0.5, 2.0)
_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Webhooks:
    """The events that wait to be sent, and those under way."""

    def __init__(self) -> None:
        self._noted: deque[tuple[Webhook, bytes]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, batch: Batch, webhook: Webhook | None) -> None:
        """Keep what is to be said of a batch that was just saved. Called in the engine's thread."""
        if webhook is None or batch.status not in FINAL or is_anthropic(batch.endpoint):
            return
        event = {
            "id": f"evt_{uuid.uuid4().hex}",
            "object": "event",
            "type": f"batch.{batch.status}",
            "created_at": int(time.time()),
            "data": {"id": batch.id},
        }
        self._noted.append((webhook, msgspec.json.encode(event)))

    def send(self) -> None:
        """Begin to send what was noted. Called in the event loop."""
        while self._noted:
            webhook, body = self._noted.popleft()
            task = asyncio.create_task(_tell(webhook, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop what is under way."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _tell(webhook: Webhook, body: bytes) -> None:
    message_id = f"wh_{uuid.uuid4().hex}"
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for _ in range(webhook.times):
            await _deliver(session, webhook, body, message_id)


async def _deliver(
    session: aiohttp.ClientSession, webhook: Webhook, body: bytes, message_id: str
) -> None:
    for pause_s in _PAUSES_S:
        await asyncio.sleep(pause_s)
        headers = signed(webhook.secret, message_id, datetime.now(UTC), body)
        try:
            async with session.post(webhook.url, data=body, headers=headers) as answer:
                if answer.ok:
                    return
                logger.info("webhook refused", extra={"status": answer.status})
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.info("webhook not heard", extra={"error": str(error)})


def signed(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of one event."""
    return {
        "content-type": "application/json",
        "user-agent": "OpenAI/1.0 (sandbox)",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(secret).sign(message_id, at, body.decode()),
    }
