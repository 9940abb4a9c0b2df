"""The result of one request, whole: the very bytes that a destination gets, whatever their size.

Where a thin message points to. The ETag is the SHA-256 of the bytes, so what was fetched can be compared with
what the message announced; a part can be asked for with `Range`.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response

from batching.api.auth import Caller
from batching.api.errors import ApiError, not_found
from batching.api.openai import ranges
from batching.api.operations import JSON, Answer, Parameter, operation
from batching.api.paging import whole_number
from batching.api.request_views import find, show_request
from batching.models import Request
from batching.models.projects import Scope
from delivery import results
from delivery.envelope import Envelope

_PIECE_BYTES: Final = 64 * 1024
_MOST_ATTEMPTS: Final = 32_767


@operation(
    scope=Scope.READ,
    query=(
        Parameter(
            name="attempt",
            about="Only the result of this attempt; 410 when the request was sent anew since.",
            schema={"type": "integer", "minimum": 1, "maximum": _MOST_ATTEMPTS},
        ),
    ),
    answers={
        200: Answer("The result, as it is delivered.", Envelope),
        206: Answer("The part asked for: bytes of the JSON, not JSON."),
        304: Answer("You have it: `If-None-Match` names its digest.", media_type=""),
    },
    fails=(400, 404, 410, 412, 416),
)
def request_result(request: HttpRequest, caller: Caller, custom_id: str) -> HttpResponseBase:
    """Fetch the result of one request, byte for byte as it is delivered.

    A message that is too large for its destination names this URL as `result_url`. The `ETag` is the
    SHA-256 of the whole; `Range`, `If-Range`, `If-Match` and `If-None-Match` are honoured.
    """
    try:
        row = find(caller, custom_id)
    except ApiError:
        return _longer_id(request, custom_id)
    attempt = whole_number(
        request.GET, "attempt", default=row.attempt, least=1, most=_MOST_ATTEMPTS
    )
    body = _body(row, attempt)
    digest = hashlib.sha256(body)
    etag = f'"{digest.hexdigest()}"'
    unwanted = get_conditional_response(request, etag=etag)
    if unwanted is not None:
        return _unwanted(unwanted)
    answer = _part(request, body, etag)
    answer["ETag"] = etag
    answer["Repr-Digest"] = f"sha-256=:{b64encode(digest.digest()).decode()}:"
    answer["Accept-Ranges"] = "bytes"
    answer["Cache-Control"] = "private, no-cache"
    return answer


def _longer_id(request: HttpRequest, custom_id: str) -> HttpResponseBase:
    """Show the request whose id ends like this path; when there is none either, 404."""
    if "attempt" in request.GET:
        raise not_found("request")
    return show_request(request, custom_id=f"{custom_id}/result")


def _body(row: Request, attempt: int) -> bytes:
    """Return the bytes. Raises ApiError when there are none, or none any more."""
    if attempt != row.attempt:
        raise ApiError("result_gone", f"the request was sent anew: attempt {row.attempt} counts")
    if not row.outcome:
        raise ApiError("not_found", "the request has no result yet")
    body = results.whole(row)
    if body is None:
        raise ApiError("result_gone", "the answer is not kept any more")
    return body


def _unwanted(answer: HttpResponseBase) -> HttpResponseBase:
    """Return Django's 304 as it is, and its 412 in the shape of our errors."""
    if answer.status_code == 412:
        raise ApiError("precondition_failed", "the result has another digest by now")
    return answer


def _part(request: HttpRequest, body: bytes, etag: str) -> HttpResponseBase:
    """Return all of it, or the part that the Range header names."""
    header = request.headers.get("Range", "")
    is_same = request.headers.get("If-Range", etag) == etag
    try:
        part = ranges.asked(header, len(body)) if header and is_same else None
    except ValueError:
        return _outside(len(body))
    start, end = part or (0, len(body))
    answer = StreamingHttpResponse(
        _pieces(body, start, end), content_type=JSON, status=206 if part else 200
    )
    answer["Content-Length"] = str(end - start)
    if part:
        answer["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
    return answer


def _outside(size: int) -> HttpResponse:
    headers = {"Content-Range": f"bytes */{size}"}
    detail = f"the result has {size} bytes"
    return ApiError("range_not_satisfiable", detail, headers=headers).response()


def _pieces(body: bytes, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE_BYTES):
        yield body[at : min(at + _PIECE_BYTES, end)]
