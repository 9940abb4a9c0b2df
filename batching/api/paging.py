"""Lists a page at a time, by keyset: never an OFFSET, never a COUNT, no row twice while new ones come.

Decides how a cursor looks: opaque to clients, the last row's place in the list to us. Views of lists
call it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from django.db import models
from django.http import HttpRequest

from batching.api.operations import Parameter, wrong_parameter
from batching.models import Request
from batching.models.requests import RequestQuerySet

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200

CURSOR: Final = Parameter(name="cursor", about="Where to go on: `next_cursor` of the page before.")
LIMIT: Final = Parameter(
    name="limit",
    about="Rows on a page.",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)

Row = TypeVar("Row", bound=models.Model)
Place = TypeVar("Place")
RowId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def newest_first(rows: models.QuerySet[Row], request: HttpRequest) -> tuple[list[Row], str | None]:
    """Return one page of ``rows``, newest first, and the cursor of the next one."""
    limit = limit_of(request)
    before = read_cursor(request, RowId)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    page = list(rows.order_by("-pk")[: limit + 1])
    return page[:limit], write_cursor(page[limit - 1].pk) if len(page) > limit else None


def by_custom_id(
    rows: RequestQuerySet, prefix: str, request: HttpRequest
) -> tuple[list[Request], str | None]:
    """Return one page of the requests whose custom_id begins with ``prefix``, in its order.

    Client batches may share custom_ids; their scopes tell them apart.
    """
    limit = limit_of(request)
    rows = rows.custom_id_begins(prefix)
    after = read_cursor(request, tuple[str, str])
    if after is not None:
        custom_id, scope = after
        rows = rows.filter(
            models.Q(custom_id__gt=custom_id) | models.Q(custom_id=custom_id, scope__gt=scope),
            custom_id__gte=custom_id,
        )
    page = list(rows.order_by("custom_id", "scope")[: limit + 1])
    if len(page) <= limit:
        return page, None
    last = page[limit - 1]
    return page[:limit], write_cursor((last.custom_id, last.scope))


def limit_of(request: HttpRequest, *, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Return the number of rows asked for. Raises ApiError 400."""
    return whole_number(request.GET, "limit", default=default, least=1, most=most)


def whole_number(
    query: Mapping[str, Any], name: str, *, default: int, least: int, most: int
) -> int:
    """Return a whole number of the query. Raises ApiError 400."""
    given = str(query.get(name, default))
    if given.isascii() and given.isdecimal() and len(given) < 10 and least <= int(given) <= most:
        return int(given)
    raise wrong_parameter(name, f"must be a whole number from {least} to {most}")


def write_cursor(place: object) -> str:
    """Return a place in a list as clients see it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(request: HttpRequest, place: type[Place] | Any) -> Place | Any | None:
    """Return the place that the query's cursor names; None without one. Raises ApiError 400."""
    given = request.GET.get("cursor", "")
    if not given:
        return None
    try:
        padded = given.encode("ascii") + b"=" * (-len(given) % 4)
        return msgspec.json.decode(
            base64.b64decode(padded, altchars=b"-_", validate=True), type=place
        )
    except (UnicodeEncodeError, binascii.Error, msgspec.DecodeError):
        raise wrong_parameter("cursor", "is none that we gave for this list") from None
