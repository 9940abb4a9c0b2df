"""The WSGI application that granian serves; whoever loads it is a web process, and says so."""

from __future__ import annotations

import gc
import os

from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batcher.settings")

application = get_wsgi_application()

from batcher import beats  # noqa: E402  # after Django is set up


def _note_call(**_signal: object) -> None:
    beats.note("a call")


# What is loaded by now stays: to look through it holds every call up, 70 ms at each full collection.
gc.collect()
gc.freeze()

beats.start("web")
request_finished.connect(_note_call)
