"""How the sandbox says no: OpenAI's error body, always with all four keys, or Anthropic's.

Used by the HTTP layer for whole calls and by the answers for single lines. Decides shapes only,
never when something is an error.
"""

from __future__ import annotations

MESSAGES = "/v1/messages"
"""Anthropic's endpoint; what lies below it belongs to Anthropic's side too."""

INVALID = "invalid_request_error"
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def is_anthropic(path: str) -> bool:
    """Return whether a path belongs to Anthropic's side."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def error_body(
    message: str, *, kind: str = INVALID, param: str | None = None, code: str | None = None
) -> dict[str, object]:
    """Return ``{"error": {message, type, param, code}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_error_body(
    status: int, message: str, *, request_id: str, kind: str | None = None
) -> dict[str, object]:
    """Return ``{"type": "error", "error": {type, message}, "request_id"}``; the type by status.

    The types are those that the anthropic SDK 2.11 knows.
    """
    if kind is None:
        kind = _ANTHROPIC_KINDS.get(status, "api_error" if status >= 500 else INVALID)
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


class ApiError(Exception):
    """Ends a call with an error answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.body = error_body(message, kind=kind, param=param, code=code)


def missing_parameter(name: str) -> ApiError:
    """Return the 400 for a parameter that was not sent."""
    return ApiError(
        400,
        f"Missing required parameter: '{name}'.",
        param=name,
        code="missing_required_parameter",
    )


def invalid_value(name: str, value: object, supported: str) -> ApiError:
    """Return the 400 for a value outside its enumeration; ``supported`` is read by people."""
    return ApiError(
        400,
        f"Invalid value: '{value}'. Supported values are: {supported}.",
        param=name,
        code="invalid_value",
    )


def invalid_type(name: str, expected: str) -> ApiError:
    """Return the 400 for a value of the wrong JSON type."""
    return ApiError(
        400,
        f"Invalid type for '{name}': expected {expected}.",
        param=name,
        code="invalid_type",
    )


def out_of_range(name: str, value: int, *, low: int, high: int) -> ApiError:
    """Return the 400 for an integer below ``low`` or above ``high``."""
    below = value < low
    side, sign, bound = ("below minimum", ">=", low) if below else ("above maximum", "<=", high)
    return ApiError(
        400,
        f"Invalid '{name}': integer {side} value. "
        f"Expected a value {sign} {bound}, but got {value} instead.",
        param=name,
        code="integer_below_min_value" if below else "integer_above_max_value",
    )
