"""Which request a call means: a new one, or one that it asked for before.

Decides the `custom_id`. The client's own, or one made from its ``Idempotency-Key``, is the same at every
repeat, and intake makes one request of all of them, whoever comes first, after any crash.

OpenAI's SDK sends no such key, but says when it tries a call again. Then the call means a request with the
same body that is open or ended just now, and that nobody waits for or was given: so calls that are alike on
purpose stay apart. Who has which request is known in this process only; after a restart, or with several
processes, two such calls that are both tried again may be given the same answer. Called by `call_views`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import uuid_utils
from django.db.models import Q
from django.http import HttpRequest

from batching.api import repeats
from batching.api.auth import Caller
from batching.api.openai.call_headers import CUSTOM_ID, is_tried_again, text_of
from batching.lifecycle import RequestState
from batching.models import Request

LATELY: Final = timedelta(hours=2)
"""The SDK tries again within seconds; by its defaults it makes three tries of ten minutes."""
JUST_NOW: Final = timedelta(minutes=5)
"""Since an end that nobody was told of, if that call is still to come again."""
MAYBE_LOST_S: Final = 30
"""For so long an answer that was given may not have arrived."""
_MOST_LOOKED_AT, _MOST_HELD = 1_000, 100_000
_LAST = chr(0x10FFFF)

_gate = threading.Lock()
_held: OrderedDict[str, float | None] = OrderedDict()
"""When the answer was given, by custom_id; None while a call waits for it."""


def forget() -> None:
    """Forget who has what, as a restart does."""
    with _gate:
        _held.clear()


def custom_id_of(request: HttpRequest, caller: Caller, body: bytes, now: datetime) -> str:
    """Return the custom_id of the request that a call means. Raises ApiError 400."""
    if (given := text_of(request, CUSTOM_ID)) is not None:
        return given
    if (name := repeats.name_of(request)) is not None:
        return f"call-{_short_hash(caller, name.encode())}"
    alike = f"call-{_short_hash(caller, request.path_info.encode() + body)}-"
    before = _lost_one(_alike(caller, alike, now)) if is_tried_again(request) else None
    return before or f"{alike}{uuid_utils.uuid7().hex}"


def _short_hash(caller: Caller, what: bytes) -> str:
    return hashlib.sha256(b"%d\n%b" % (caller.key.pk, what)).hexdigest()[:32]


def _alike(caller: Caller, beginning: str, now: datetime) -> list[str]:
    """Return requests that a call tried again may mean, newest first: their names sort by time."""
    rows = Request.objects.filter(project=caller.project, scope="", created_at__gt=now - LATELY)
    rows = rows.filter(custom_id__gt=beginning, custom_id__lt=beginning + _LAST)
    is_open = Q(state__in=[RequestState.PENDING, RequestState.PROCESSING])
    rows = rows.filter(is_open | Q(settled_at__gt=now - JUST_NOW))
    return list(rows.order_by("-custom_id").values_list("custom_id", flat=True)[:_MOST_LOOKED_AT])


def _lost_one(names: Iterable[str]) -> str | None:
    """Take the first that nobody has; else the first whose holder may have gone."""
    names = list(names)
    maybe_lost_since = time.monotonic() - MAYBE_LOST_S
    with _gate:
        free = [name for name in names if name not in _held]
        for name in free or names:
            given_at = _held.get(name)
            if given_at is None or given_at > maybe_lost_since:
                _note(name, None)
                return name
    return None


def hold(custom_id: str) -> None:
    """Note that a call waits for this request."""
    with _gate:
        _note(custom_id, None)


def give(custom_id: str) -> None:
    """Note that a call was given its answer."""
    with _gate:
        _note(custom_id, time.monotonic())


def let_go(custom_id: str) -> None:
    """Note that a call went away without the answer."""
    with _gate:
        _held.pop(custom_id, None)


def _note(custom_id: str, given_at: float | None) -> None:
    _held[custom_id] = given_at
    if len(_held) > _MOST_HELD:
        _held.popitem(last=False)
