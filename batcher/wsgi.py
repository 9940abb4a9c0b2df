"""The WSGI application that granian serves; whoever loads it is a web process, and says so."""

from __future__ import annotations

import os

from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batcher.settings")

application = get_wsgi_application()

from batcher import beats, garbage  # noqa: E402  # after Django is set up


def _note_call(**_signal: object) -> None:
    beats.note("a call")


garbage.look_less()
beats.start("web")
request_finished.connect(_note_call)
