"""Reads JSON that strangers wrote: whatever has the wrong type counts as absent, nothing raises later.

Decides how far a provider may stray from its own documents before we stop believing a value.
Called by the providers and by ``faults``; never by anything that reads our own data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MAX_COUNT = 2**31 - 1
"""Counts end up in 32-bit columns."""
MAX_TOKENS = 2**53 - 1
"""Token sums end up in 64-bit columns and in JSON, where larger numbers lose digits."""

# U+0000 and surrogates: legal in JSON escapes, refused by PostgreSQL and by UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def parse(content: bytes) -> Any:
    """Parse JSON into values that every database can hold.

    NUL and lone surrogates become U+FFFD; NaN and infinities become None. Raises ValueError.
    """
    try:
        return _storable(json.loads(content.decode("utf-8-sig", "replace")))
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    return value


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object, *, limit: int = 500) -> str:
    """Return a string (or a number spelled out) cut to ``limit`` characters, else the empty one."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return _UNSTORABLE.sub("\ufffd", str(value))[:limit]


def key(value: object) -> str | None:
    """Return a non-empty id, else None."""
    return value if isinstance(value, str) and value else None


def count(value: object, *, ceiling: int = MAX_COUNT) -> int | None:
    """Return a whole number from 0 to ``ceiling``, else None; booleans and floats are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= ceiling else None


def moment(value: object) -> datetime | None:
    """Return a time given as Unix seconds or ISO 8601 (UTC when it names no zone), else None."""
    try:
        if isinstance(value, str):
            named = datetime.fromisoformat(value)
            return (named if named.tzinfo else named.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None
