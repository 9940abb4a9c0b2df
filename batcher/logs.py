"""One readable line for each event: UTC time, level, process, event text, then its facts as key=value.

Decides the look of the log and which chatter of libraries is left out. `batcher/settings.py` uses it
for Django, and `batcher/celery.py` for workers and clock. Never decides what is logged by our own code.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FRAMEWORK_FACTS = frozenset({"request", "server_time", "status_code", "data", "sql", "params"})


class LineFormatter(logging.Formatter):
    """Formats a log event as one line; a traceback follows on its own lines."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, with what was given as `extra` at its end."""
        line = super().format(record)
        facts = [
            f"{name}={_shown(value)}"
            for name, value in vars(record).items()
            if name not in _STANDARD and name not in _FRAMEWORK_FACTS
        ]
        if not facts:
            return line
        head, newline, traceback = line.partition("\n")
        return f"{head} {' '.join(facts)}{newline}{traceback}"


def _shown(value: object) -> str:
    """Return `value` as text that can not be taken for two facts or two lines."""
    plain = str(value)
    if plain and plain.isprintable() and not set(plain) & set(' "='):
        return plain
    return json.dumps(plain, ensure_ascii=False)


def logging_settings(level: str) -> dict[str, Any]:
    """Return the `LOGGING` dictionary: everything to stderr from `level` up."""
    quiet = {"level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": LineFormatter,
                "format": "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s %(message)s",
                "datefmt": "%Y-%m-%dT%H:%M:%S",
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"handlers": [], "propagate": True, "level": "INFO"},
            "django.server": {"handlers": [], "propagate": True},
            "django.request": {"level": "ERROR"},
            "celery": quiet,
            "kombu": quiet,
            "amqp": quiet,
            "pika": {"level": "CRITICAL"},  # it logs tracebacks of ordinary outages
            "urllib3": quiet,
            "django_celery_beat": quiet,
            "_granian": quiet,
        },
    }
