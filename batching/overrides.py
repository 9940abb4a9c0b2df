"""Settings that an admin may change while we run: his row, else the environment, else the default.

Whoever acts by such a setting asks `effective` at that moment, in every process; rows are read again after a
few seconds. ``batcher/settings.py`` says which settings may be overridden and how their text is read, the admin
writes the rows. Never secrets, addresses or what is only read at a start
(docs/decisions/0008-settings-in-the-panel.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError

from batching.models import Override

logger = logging.getLogger(__name__)

FRESH_S: Final = 5.0
"""How long a process goes on by what it read."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What this process read last."""

    values: Mapping[str, Any]
    """Parsed, by name."""
    until: float
    """Monotonic seconds."""


_UNREAD: Final = Held(values={}, until=float("-inf"))
_held = _UNREAD


def effective(name: str) -> Any:
    """Return the value of a setting that holds now, of the type that ``settings`` has."""
    values = _current().values
    return values[name] if name in values else getattr(settings, name)


def forget() -> None:
    """Read the rows again when they are asked for next; after a change."""
    global _held
    _held = _UNREAD


def read(name: str, text: str) -> Any:
    """Return what a text means for a setting. Raises ValueError with what is accepted, LookupError when none may be set."""
    for variable in settings.ENVIRONMENT.declared:
        if variable.name == name and variable.parse is not None:
            return variable.parse(text)
    raise LookupError(name)


def _current() -> Held:
    global _held
    held = _held
    if time.monotonic() >= held.until:
        held = _held = Held(values=_rows(held), until=time.monotonic() + FRESH_S)
    return held


def _rows(held: Held) -> Mapping[str, Any]:
    """Return all overrides; what was read before, while the database can't be asked."""
    try:
        rows = list(Override.objects.values_list("name", "value"))
    except DatabaseError as error:
        logger.warning("overrides not read", extra={"error": str(error)[:200]})
        return held.values
    found = {}
    for name, text in rows:
        try:
            found[name] = read(name, text)
        except (ValueError, LookupError) as error:  # another version of us took it
            logger.warning("override ignored", extra={"setting": name, "error": str(error)[:200]})
    return found
