"""Search that an index answers: an exact id, the beginning of one, or one of our keys. Never a scan.

The lists' ``get_search_results`` call this; it decides which column a term is looked up in.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q

LAST_CHARACTER = chr(0x10FFFF)


def begins(field: str, beginning: str) -> Q:
    """Return the rows whose ``field`` begins so, as a range that an index on it serves."""
    return Q(**{f"{field}__gte": beginning, f"{field}__lt": beginning + LAST_CHARACTER}) & Q(
        **{f"{field}__startswith": beginning}
    )


def key_is(term: str, prefix: str, field: str = "key") -> Q | None:
    """Return the rows with this key when ``term`` looks like one (``req_…``), whole or its beginning."""
    term = term.lower()
    if not term.startswith(f"{prefix}_"):
        return None
    if len(term) == len(prefix) + 33:
        return Q(**{field: term})
    # Keys are lower-case hex digits: "g" is past all of them, in any collation.
    return Q(**{f"{field}__gte": term, f"{field}__lt": term + "g"})


def number_is(term: str, field: str = "pk") -> Q | None:
    """Return the row with this number when ``term`` is one."""
    digits = term.removeprefix("#")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        return None
    conditions: dict[str, Any] = {field: int(digits)}
    return Q(**conditions)
