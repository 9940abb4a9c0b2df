"""What one key may ask for: models, endpoints and destinations, by patterns.

`intake` asks for every line, whatever door it came through. A pattern is plain text in which ``*`` stands for
anything. Destinations are matched by where they lead: a webhook by its origin (``https://*.example.com``: a
path would promise more than a redirecting or sloppy server keeps), others as ``queue:NAME``,
``exchange:NAME`` and ``name:NAME``. What the client pulls needs no permit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from batching.addressing import Unknown
from batching.models import ApiKey
from batching.wire import ENDPOINTS, Delivery, Line

MODEL_NOT_ALLOWED: Final = "model_not_allowed"
ENDPOINT_NOT_ALLOWED: Final = "endpoint_not_allowed"
DESTINATION_NOT_ALLOWED: Final = "destination_not_allowed"
_OTHER_PLACE = re.compile(r"(?:queue|exchange|name):.+", re.DOTALL)
_ORIGIN = re.compile(r"https?://[^/\\?#@\s]+")
_PORTS = {"http": 80, "https": 443}


class Permit:
    """What a key may ask for; made once a chunk of lines."""

    def __init__(self, key: ApiKey) -> None:
        self._models = _pattern(key.allowed_models)
        self._endpoints = _pattern(key.allowed_endpoints)
        self._destinations = _pattern(key.allowed_destinations)

    def check(self, line: Line) -> None:
        """Raise Unknown, with a code of its own, when the line asks for more than the key may."""
        if self._endpoints and not self._endpoints.fullmatch(line.url):
            raise Unknown(ENDPOINT_NOT_ALLOWED, f"this API key may not use {line.url}", "/url")
        if self._models and not self._models.fullmatch(line.model):
            detail = f"this API key may not use the model {line.model!r}"
            raise Unknown(MODEL_NOT_ALLOWED, detail, "/body/model")
        self.check_place(line.delivery)

    def check_place(self, *deliveries: Delivery | None) -> None:
        """Raise Unknown unless the key may send results to one of these: names of the same place."""
        places = list(filter(None, map(place_of, deliveries)))
        if not self._destinations or not places:
            return
        if not any(self._destinations.fullmatch(place) for place in places):
            detail = f"this API key may not send results to {places[0]}"
            raise Unknown(DESTINATION_NOT_ALLOWED, detail, "/delivery_config")


def _pattern(allowed: Iterable[str]) -> re.Pattern[str] | None:
    return _compiled(tuple(allowed)) if allowed else None


@lru_cache(maxsize=1024)
def _compiled(allowed: tuple[str, ...]) -> re.Pattern[str]:
    choices = (".*".join(map(re.escape, one.split("*"))) for one in allowed)
    return re.compile("|".join(choices), re.DOTALL)


def place_of(delivery: Delivery | None) -> str:
    """Return where a delivery leads, as patterns are written; empty when its client pulls."""
    if delivery is None or delivery.type == "none":
        return ""
    if delivery.type == "destination":
        return f"name:{delivery.name}"
    if delivery.type == "rabbitmq":
        return f"queue:{delivery.queue}" if delivery.queue else f"exchange:{delivery.exchange}"
    parts = urlsplit(delivery.url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    is_usual = parts.port in (None, _PORTS.get(parts.scheme))
    return f"{parts.scheme}://{host}" if is_usual else f"{parts.scheme}://{host}:{parts.port}"


def problem_with(models: list[str], endpoints: list[str], destinations: list[str]) -> str:
    """Return what is wrong with patterns that someone typed; empty when nothing is."""
    for pattern in (*models, *endpoints, *destinations):
        if not pattern or len(pattern) > 300:
            return "a pattern has 1 to 300 characters"
    for pattern in endpoints:
        if not any(_compiled((pattern,)).fullmatch(endpoint) for endpoint in ENDPOINTS):
            return f"{pattern} fits no endpoint: there are {', '.join(ENDPOINTS)}"
    for pattern in destinations:
        if not (_ORIGIN.fullmatch(pattern) or _OTHER_PLACE.fullmatch(pattern)):
            return f"{pattern} is no place: write https://host (no path), queue:…, exchange:… or name:…"
    return ""
