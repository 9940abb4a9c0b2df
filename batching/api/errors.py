"""What went wrong, as a program reads it: one shape for every error under /api.

Decides the HTTP status and the title of each error code. Views raise ApiError or let the errors of the
core fall through; `operations` turns all of them into answers. Never shows what is inside of us: an
unexpected failure is logged with an id, and only that id is answered.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Final

import msgspec
from django.http import HttpResponse

logger = getLogger(__name__)

TITLES: Final = {
    "malformed_json": "Malformed JSON",
    "invalid_encoding": "Invalid Encoding",
    "nested_too_deep": "Nested Too Deep",
    "malformed_gzip": "Malformed Gzip",
    "incomplete_body": "Incomplete Body",
    "invalid_parameter": "Invalid Parameter",
    "unauthorized": "Unauthorized",
    "wrong_signature": "Wrong Signature",
    "insufficient_scope": "Insufficient Scope",
    "not_found": "Not Found",
    "method_not_allowed": "Method Not Allowed",
    "duplicate_custom_id": "Custom ID Already Exists",
    "shared_batch": "Batch Is Shared",
    "shared_account": "Account Is Shared",
    "payload_too_large": "Payload Too Large",
    "unsupported_media_type": "Unsupported Media Type",
    "validation_error": "Validation Error",
    "invalid_state": "Invalid State",
    "invalid_batch_state": "Invalid Batch State",
    "maintenance_mode": "Maintenance Mode",
    "internal_error": "Internal Error",
}
"""Titles of the codes that have a better one than their own words."""

STATUSES: Final = {
    "malformed_json": 400,
    "invalid_encoding": 400,
    "nested_too_deep": 400,
    "malformed_gzip": 400,
    "incomplete_body": 400,
    "invalid_parameter": 400,
    "wrong_signature": 400,
    "invalid_idempotency_key": 400,
    "unauthorized": 401,
    "insufficient_scope": 403,
    "model_not_allowed": 403,
    "endpoint_not_allowed": 403,
    "destination_not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "duplicate_custom_id": 409,
    "shared_batch": 409,
    "shared_account": 409,
    "changed_meanwhile": 409,
    "idempotency_in_flight": 409,
    "result_gone": 410,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "idempotency_key_reused": 422,
    "rate_limited": 429,
    "too_many_waiting": 429,
    "internal_error": 500,
    "maintenance_mode": 503,
    "try_again": 503,
}
"""The HTTP status of each code; any other is something that the core refuses: 422."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an error is about: a member of the body, or a parameter of the query."""

    pointer: str = ""
    """JSON pointer into the body that was sent."""
    parameter: str = ""
    """Name of the query parameter."""


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong."""

    status: str
    """The HTTP status, as text."""
    code: str
    """For programs; never changes its meaning."""
    title: str
    """The code, for people."""
    detail: str
    """What is wrong this time, in plain words."""
    source: Source | None = None
    meta: dict[str, str] | None = None
    """Facts of the case, such as the state that a row really has."""
    line: int | None = None
    """1-based line of a bulk upload."""


class Errors(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is not a success."""

    errors: list[Error]
    errors_left_out: int = 0
    """How many more there are, when there are too many to tell."""


class ApiError(Exception):
    """A call is answered with this error instead."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        source: Source | None = None,
        meta: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = self.status_for(code)
        self.error = Error(
            status=str(self.status),
            code=code,
            title=title_of(code),
            detail=detail,
            source=source,
            meta=dict(meta) if meta else None,
        )
        self.headers = headers or {}

    def status_for(self, code: str) -> int:
        """Return the HTTP status of this error."""
        return status_of(code)

    def response(self) -> HttpResponse:
        """Return the HTTP answer that says so."""
        return failure(self.status, [self.error], self.headers)


class Conflict(ApiError):
    """What was asked does not fit the state of the thing: 409, whatever the code."""

    def status_for(self, code: str) -> int:
        """Return 409."""
        return 409


def status_of(code: str) -> int:
    """Return the HTTP status of an error code."""
    return STATUSES.get(code, 422)


def title_of(code: str) -> str:
    """Return an error code as a title."""
    return TITLES.get(code) or code.replace("_", " ").title()


def failure(
    status: int,
    errors: Iterable[Error],
    headers: Mapping[str, str] | None = None,
    *,
    left_out: int = 0,
) -> HttpResponse:
    """Return an answer whose body holds these errors."""
    body = msgspec.json.encode(Errors(errors=list(errors), errors_left_out=left_out))
    return HttpResponse(body, content_type="application/json", status=status, headers=headers or {})


def not_found(what: str) -> ApiError:
    """Return the error for a thing that is not there, or not yours: the two look the same."""
    return ApiError("not_found", f"no such {what}")


def unexpected(path: str, problem: Exception) -> HttpResponse:
    """Log an exception under a new id, and answer with that id alone."""
    error_id = uuid.uuid4().hex
    facts = {"error_id": error_id, "path": path[:200]}
    logger.error("api call failed", exc_info=problem, extra=facts)
    detail = "something went wrong on our side; the log has it under this id"
    return ApiError("internal_error", detail, meta={"error_id": error_id}).response()
