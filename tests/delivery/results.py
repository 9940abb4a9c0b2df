"""Results that are due, and receivers that run while a dispatch does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

from batching.models import Answer, Destination, Request
from tests.batching.rows import NOW, a_destination, a_request, an_answer
from tests.delivery.receivers import Act, Receiver, receiving


def a_result(destination: Destination | None = None, **fields) -> Request:
    """Return a request with a good answer that is due now."""
    fields = {"state": "processed", "due_at": NOW} | fields
    request = a_request(destination=destination or a_destination(), **fields)
    an_answer(request)
    return request


def a_bad_end(destination: Destination | None = None, **fields) -> Request:
    """Return a request without an answer whose end its client is to be told of now."""
    fields = {
        "state": "failed",
        "due_at": NOW,
        "error_code": "missing_in_output",
        "error_message": "no answer came",
    } | fields
    return a_request(destination=destination or a_destination(), **fields)


def answer_of(request: Request) -> Answer:
    return Answer.objects.get(request=request, attempt=request.attempt)


@contextlib.contextmanager
def listening(act: Act, *, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver in a thread of its own while the block runs."""
    began, receivers = threading.Event(), []
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with receiving(act, tls=tls) as receiver:
            receivers.append(receiver)
            began.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert began.wait(timeout=10)
    try:
        yield receivers[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(timeout=10)
        loop.close()
