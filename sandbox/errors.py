"""How the sandbox says no: OpenAI's error body, always with all four keys.

Used by the HTTP layer for whole calls and by the answers for single lines. Decides shapes only,
never when something is an error.
"""

from __future__ import annotations

INVALID = "invalid_request_error"


def error_body(
    message: str, *, kind: str = INVALID, param: str | None = None, code: str | None = None
) -> dict[str, object]:
    """Return ``{"error": {message, type, param, code}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


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
