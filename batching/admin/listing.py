"""What a list shows, from its address alone: the same rows whether a page asks or a worker does.

A run keeps a list's address as its filter; the list's own filters and search read it, so nothing can mean other
rows than those that were seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, QueryDict

from batching.admin.rows import ROWS_ALONE
from batching.steering import Refused

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import QuerySet

    from batching.admin.rows import OurAdmin

_PLACE_OF_LIST: Final = (
    "p",
    "all",
    "o",
    "e",
    "top",
    "before",
    "after",
    "size",
    "_changelist_filters",
)
"""Parameters of a list's address that say where one looks, not what is listed."""

_SAID: Final = {"q": "search", "quick": ""}
"""Parameters whose names say little to people."""


def filter_of(query: str) -> str:
    """Return what of a list's address says which rows."""
    given = QueryDict(query, mutable=True)
    for name in _PLACE_OF_LIST:
        given.pop(name, None)
    for name in [name for name, values in given.lists() if not "".join(values).strip()]:
        del given[name]
    return given.urlencode()


def in_words(query: str) -> str:
    """Return a filter for people: ``state processing, lane 3``; empty when there is none."""
    given = QueryDict(query).lists()
    named = [(_SAID.get(name, name.split("__")[0]), values) for name, values in given]
    words = (f"{name.replace('_', ' ')} {' or '.join(values)}".strip() for name, values in named)
    return ", ".join(words)


def rows_listed(rows_admin: OurAdmin[Any], user: User | AnonymousUser, query: str) -> QuerySet[Any]:
    """Return the rows that the list at this address shows to this user, all of them. Raises Refused."""
    request = HttpRequest()
    request.method, request.user = "GET", user
    request.GET = QueryDict(filter_of(query))
    request.META[ROWS_ALONE] = True
    try:
        found = rows_admin.get_changelist_instance(request)
    except (IncorrectLookupParameters, SuspiciousOperation, ValueError) as problem:
        raise Refused("unknown_filter", f"the list has no such filter: {problem}") from problem
    rows: QuerySet[Any] = found.queryset.order_by()
    return rows
