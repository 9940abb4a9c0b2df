"""A request as a call of our own API that someone may paste into a shell. Holds no secret: the key is a variable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from batching.models import RequestBody

if TYPE_CHECKING:
    from batching.models import Request

_MARK: Final = "BATCHER_BODY"
"""Ends the body in the shell; no line of JSON is this word alone."""


def of(row: Request, base_url: str) -> str:
    """Return a curl call that sends the same request anew, under another custom_id; its body as it came."""
    body = RequestBody.objects.filter(request=row).values_list("body", flat=True).first() or b"{}"
    members = {
        "custom_id": f"{row.custom_id[:500]}-copy",
        "method": "POST",
        "url": row.lane.endpoint,
    }
    beginning = json.dumps(members)[:-1]
    return "\n".join(
        (
            f"curl -sS '{base_url}api/requests' \\",
            '  -H "Authorization: Bearer $BATCHER_API_KEY" \\',
            "  -H 'Content-Type: application/json' \\",
            f"  --data-binary @- <<'{_MARK}'",
            f'{beginning}, "body": {bytes(body).decode("utf-8", "replace")}}}',
            _MARK,
        )
    )
