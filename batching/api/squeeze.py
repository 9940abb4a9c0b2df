"""Answers as small as the client can read: JSON of more than a kilobyte is gzipped when it is asked for.

Decides only whether and how; `operations` asks for each answer under /api. What is streamed goes out as it
is. A guess at a secret by the size of an answer (BREACH) needs a browser that sends a cookie along; here
each call carries its key itself.
"""

from __future__ import annotations

import gzip
from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers

LEAST_BYTES: Final = 1024
_LEVEL = 5
_JSON = "application/json"


def squeezed(request: HttpRequest, answer: HttpResponseBase) -> HttpResponseBase:
    """Return the answer, its body gzipped where that is worth it and the client takes it."""
    if not isinstance(answer, HttpResponse) or not _is_worth_it(answer):
        return answer
    patch_vary_headers(answer, ["Accept-Encoding"])
    if takes_gzip(request.headers.get("Accept-Encoding", "")):
        answer.content = gzip.compress(answer.content, compresslevel=_LEVEL, mtime=0)
        answer["Content-Encoding"] = "gzip"
    return answer


def _is_worth_it(answer: HttpResponse) -> bool:
    is_json = answer.get("Content-Type", "").startswith(_JSON)
    return (
        is_json and not answer.has_header("Content-Encoding") and len(answer.content) > LEAST_BYTES
    )


def takes_gzip(accepted: str) -> bool:
    """Read an Accept-Encoding header: is gzip named, or any, and not ruled out by ``q=0``?"""
    weights = dict(_weighed(part) for part in accepted.lower().split(",") if part.strip())
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weighed(part: str) -> tuple[str, float]:
    name, _, weight = part.partition(";")
    try:
        return name.strip(), float(weight.strip().removeprefix("q=") or 1)
    except ValueError:
        return name.strip(), 0.0
