"""Search that an index answers: an exact id, the beginning of one, or one of our keys. Never a scan.

The lists' ``get_search_results`` call this; it decides which column a term is looked up in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import Q

if TYPE_CHECKING:
    from django.db.models import QuerySet

LAST_CHARACTER = chr(0x10FFFF)


def begins(rows: QuerySet[Any], field: str, beginning: str) -> QuerySet[Any]:
    """Keep the rows whose ``field`` begins so, in words that each database's index understands.

    SQLite sorts by bytes and uses no index for LIKE, so it is given a range. PostgreSQL sorts by the
    language of the database, where a range means something else, and is given LIKE.
    """
    if connections[rows.db].vendor == "sqlite":
        ends = beginning + LAST_CHARACTER
        return rows.filter(**{f"{field}__gte": beginning, f"{field}__lt": ends})
    return rows.filter(**{f"{field}__startswith": beginning})


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
