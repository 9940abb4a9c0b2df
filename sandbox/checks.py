"""What a call must look like: the parameters of /v1/files and /v1/batches, checked as OpenAI does.

Every function returns the value it was asked for or raises ApiError. Nothing is looked up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from sandbox.answers import ENDPOINTS
from sandbox.errors import ApiError, invalid_type, invalid_value, missing_parameter, out_of_range

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
SHORTEST_KEPT_S = 3600
LONGEST_KEPT_S = 30 * 24 * 3600
_BATCH_MEMBERS = {
    "input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after",
}  # fmt: skip


async def json_body(request: web.Request) -> dict[str, Any]:
    """Return the body, which must be a JSON object."""
    try:
        body = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
            "using your HTTP library correctly. The OpenAI API expects a JSON payload.)",
        ) from error
    if not isinstance(body, dict):
        raise invalid_type("body", "an object")
    return body


def batch_parameters(body: Mapping[str, Any]) -> None:
    """Check the body of ``POST /v1/batches``, all but whether the file exists."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise missing_parameter(name)
        if not isinstance(body[name], str):
            raise invalid_type(name, "a string")
    if body["endpoint"] not in ENDPOINTS:
        raise invalid_value("endpoint", body["endpoint"], _quoted(ENDPOINTS))
    if body["completion_window"] != "24h":
        raise invalid_value("completion_window", body["completion_window"], "'24h'")
    if strange := sorted(set(body) - _BATCH_MEMBERS):
        raise ApiError(
            400,
            f"Unknown parameter: '{strange[0]}'.",
            param=strange[0],
            code="unknown_parameter",
        )
    metadata(body.get("metadata"))


def metadata(value: object) -> dict[str, str] | None:
    """Check metadata: up to 16 pairs, keys up to 64 and values up to 512 characters."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid_type("metadata", "an object with string keys and values")
    if len(value) > 16:
        raise ApiError(
            400,
            "Invalid 'metadata': too many properties. Expected an object with at most 16 "
            f"properties, but got an object with {len(value)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, text in value.items():
        if not isinstance(text, str):
            raise invalid_type(f"metadata.{key}", "a string")
        _check_length("metadata key", key, 64)
        _check_length(f"metadata.{key}", text, 512)
    return value


def output_kept_s(value: object) -> int | None:
    """Return the seconds of ``output_expires_after``."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid_type("output_expires_after", "an object")
    return kept_s("output_expires_after", value.get("anchor"), value.get("seconds"))


def kept_s(name: str, anchor: object, seconds: object) -> int:
    """Return the seconds of an expiry, from its two members."""
    if anchor is None or seconds is None:
        raise missing_parameter(f"{name}.{'anchor' if anchor is None else 'seconds'}")
    if anchor != "created_at":
        raise invalid_value(f"{name}.anchor", anchor, "'created_at'")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit():
        seconds = int(seconds)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise invalid_type(f"{name}.seconds", "an integer")
    if not SHORTEST_KEPT_S <= seconds <= LONGEST_KEPT_S:
        raise out_of_range(f"{name}.seconds", seconds, low=SHORTEST_KEPT_S, high=LONGEST_KEPT_S)
    return seconds


def purpose(value: str | None) -> str:
    """Return the purpose of an upload."""
    if value is None:
        raise missing_parameter("purpose")
    if value not in PURPOSES:
        raise invalid_value("purpose", value, _quoted(PURPOSES))
    return value


def limit(request: web.Request, *, default: int, most: int) -> int:
    """Return the query's ``limit``."""
    text = request.query.get("limit")
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise invalid_type("limit", "an integer") from error
    if not 1 <= value <= most:
        raise out_of_range("limit", value, low=1, high=most)
    return value


def order(request: web.Request) -> bool:
    """Return whether the query asks for the oldest first."""
    value = request.query.get("order", "desc")
    if value not in ("asc", "desc"):
        raise invalid_value("order", value, "'asc' and 'desc'")
    return value == "asc"


def _check_length(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise ApiError(
            400,
            f"Invalid '{name}': string too long. Expected a string with maximum length {most}, but "
            f"got a string with length {len(text)} instead.",
            param="metadata",
            code="string_above_max_length",
        )


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)
