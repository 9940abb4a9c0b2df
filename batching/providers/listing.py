"""Listings of a provider, page by page.

A listing decides whether a lost batch exists, so one that cannot be read is an error and never an
empty one. Called by the providers; each names its own cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from batching.providers import tolerant
from batching.providers.base import ProviderError, RemoteBatch, Trouble
from batching.providers.http import Http

Page = list[Mapping[str, Any]]


def pages(http: Http, path: str, *, cursor: str, per_page: int, **params: str) -> Iterator[Page]:
    """Yield a listing's pages; ``cursor`` is the parameter that names the last object so far.

    An object shows up once, also when it moved to the next page meanwhile or when the server ignores
    the cursor and sends the first page for ever. Raises ProviderError(RETRY).
    """
    asked: dict[str, str | int] = {**params, "limit": per_page}
    seen = set[str]()
    while True:
        page, is_last = _page(http.get(path, params=asked), per_page=per_page)
        fresh = [each for each in page if each["id"] not in seen]
        if not fresh:
            return
        yield fresh
        if is_last:
            return
        seen.update(each["id"] for each in fresh)
        asked[cursor] = page[-1]["id"]


def recent(
    found: Iterable[Page], *, since: datetime, read: Callable[[object], RemoteBatch]
) -> Iterator[RemoteBatch]:
    """Yield batches created at or after ``since``; a page of older ones only is the last one."""
    for page in found:
        batches = [read(each) for each in page]
        young = [each for each in batches if each.created_at is None or each.created_at >= since]
        yield from young
        if not young:
            return


def _page(answer: object, *, per_page: int) -> tuple[Page, bool]:
    """Return a page's objects and whether it is the last one; a bare array is a whole listing."""
    rows = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(rows, list) or not all(
        tolerant.key(tolerant.mapping(row).get("id")) for row in rows
    ):
        raise ProviderError("the listing cannot be read", trouble=Trouble.RETRY)
    has_more = answer.get("has_more") if isinstance(answer, dict) else False
    return rows, not has_more if isinstance(has_more, bool) else len(rows) < per_page
