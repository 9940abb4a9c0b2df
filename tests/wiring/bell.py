"""A task and a sender for tests with real processes: `python -m tests.wiring.bell <sender> <count>`."""

from __future__ import annotations

import os
import sys

from celery import shared_task


@shared_task(name="tests.wiring.bell.ring")
def ring(name: str) -> None:
    """Write `name` as one line of the file that BELL_FILE names; one write, so lines never mix."""
    book = os.open(os.environ["BELL_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(book, f"{name}\n".encode())
    os.close(book)


def main() -> None:
    """Ring as `sender`, `count` times, on all queues in turn."""
    import django

    django.setup()
    from batcher.schedule import WorkQueue

    sender, count = sys.argv[1], int(sys.argv[2])
    queues = list(WorkQueue)
    for number in range(count):
        queue = queues[number % len(queues)]
        ring.apply_async([f"{sender}-{number}-{queue.value}"], queue=queue.value)


if __name__ == "__main__":
    main()
