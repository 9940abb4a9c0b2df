"""A consumer that is killed after the commit of its first chunk, before it acknowledges: `URL QUEUE`."""

from __future__ import annotations

import os
import signal
import sys
import threading

import django

if __name__ == "__main__":
    django.setup()
    from delivery import intake_consumer

    intake_consumer._Session.settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    source = intake_consumer.Source(url=sys.argv[1], queue=sys.argv[2])
    intake_consumer.consume(source, threading.Event())
