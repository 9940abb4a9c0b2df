"""Search that an index answers: an exact id, or one of our keys or its beginning. Never a scan.

The lists' ``get_search_results`` call this; it decides which column a term is looked up in.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q


def key_is(term: str, prefix: str, field: str = "key") -> Q | None:
    """Return the rows with this key when ``term`` looks like one (``req_…``), whole or its beginning."""
    term = term.lower()
    if not term.startswith(f"{prefix}_"):
        return None
    if len(term) == len(prefix) + 33:
        return Q(**{field: term})
    # Keys are lower-case hex digits: "g" is past all of them, in any collation.
    return Q(**{f"{field}__gte": term, f"{field}__lt": term + "g"})


def is_whole(term: str, prefix: str) -> bool:
    """Return whether a term names one row: by its number, or by its whole key."""
    return number_is(term) is not None or (
        term.startswith(f"{prefix}_") and len(term) == len(prefix) + 33
    )


def number_is(term: str, field: str = "pk") -> Q | None:
    """Return the row with this number when ``term`` is one."""
    digits = term.removeprefix("#")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        return None
    conditions: dict[str, Any] = {field: int(digits)}
    return Q(**conditions)
