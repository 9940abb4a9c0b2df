"""/v1/messages: an Anthropic message that comes back to what was asked.

Writes as text.py does; shapes follow the types of the anthropic SDK 2.11. Refuses what the API
refuses, among it what makes no sense in a batch, with Anthropic's error body.
"""

from __future__ import annotations

from typing import Any

from sandbox.answers import text
from sandbox.answers.call import Answer, Call, tokens_in
from sandbox.errors import INVALID, anthropic_error_body
from sandbox.objects import TokenUse

_SHORTEST_CACHED = 1024
"""Tokens; shorter prompts are never cached."""


class _RefusedError(Exception):
    """The parameters can't be taken."""

    def __init__(self, message: str, kind: str = INVALID) -> None:
        super().__init__(message)
        self.kind = kind


def message(call: Call) -> Answer:
    """Answer a /v1/messages body; a wrong one with its error."""
    try:
        _check(call)
    except _RefusedError as refused:
        status = 404 if refused.kind == "not_found_error" else 400
        body = anthropic_error_body(
            status, str(refused), request_id=f"req_{call.identity}", kind=refused.kind
        )
        return Answer(status=status, body=body)
    written = text.write(
        call, list(text.texts(call.body["messages"])), call.body["max_tokens"], _form(call.body)
    )
    usage, counted = _usage(call, written.tokens)
    body = {
        "id": f"msg_{call.identity[:24]}",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": [{"type": "text", "text": written.text}],
        "stop_reason": "max_tokens" if written.is_cut else "end_turn",
        "stop_sequence": None,
        "usage": counted,
    }
    return Answer(status=200, body=body, usage=usage)


def _check(call: Call) -> None:
    body = call.body
    if not isinstance(body.get("model"), str):
        raise _RefusedError(_wrong(body, "model", "string"))
    if not call.is_known_model(body["model"]):
        raise _RefusedError(f"model: {body['model']}", "not_found_error")
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise _RefusedError(_wrong(body, "max_tokens", "integer"))
    if limit < 1:
        raise _RefusedError("max_tokens: Input should be greater than or equal to 1")
    _check_messages(body)
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and not 0 <= temperature <= 1:
        raise _RefusedError("temperature: range: 0..1")
    if body.get("stream") is True:
        raise _RefusedError("stream: Streaming is not supported here")
    if call.is_batched and body.get("speed") not in (None, "standard"):
        raise _RefusedError("speed: Not supported in batches")


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise _RefusedError(_wrong(body, "messages", "list"))
    if not messages:
        raise _RefusedError("messages: at least one message is required")
    for index, one in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(one, dict):
            raise _RefusedError(f"{where}: Input should be an object")
        if one.get("role") not in ("user", "assistant", "system"):
            raise _RefusedError(_wrong(one, "role", "'user' or 'assistant'", f"{where}."))
        if not isinstance(one.get("content"), str | list):
            raise _RefusedError(_wrong(one, "content", "string or list", f"{where}."))


def _wrong(holder: dict[str, Any], name: str, expected: str, where: str = "") -> str:
    if name not in holder:
        return f"{where}{name}: Field required"
    return f"{where}{name}: Input should be a valid {expected}"


def _form(body: dict[str, Any]) -> object:
    """Return the format of ``output_config`` in the shape that chat completions use."""
    config = body.get("output_config")
    form = config.get("format") if isinstance(config, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": form}
    return None


def _usage(call: Call, output: int) -> tuple[TokenUse, dict[str, Any]]:
    """Count tokens; what is marked for the cache is written to it or, now and then, read from it."""
    asked = [*text.texts(call.body.get("system")), *text.texts(call.body["messages"])]
    tokens = 8 + sum(tokens_in(part) for part in asked)
    marked = tokens // 2 if tokens >= _SHORTEST_CACHED and _is_marked(call.body) else 0
    read = marked if call.pick(12, 3) else 0
    written = marked - read
    counted = {
        "input_tokens": tokens - marked,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "batch" if call.is_batched else "standard",
    }
    return TokenUse(input=tokens, cached=read, output=output), counted


def _is_marked(value: object) -> bool:
    """Return whether ``cache_control`` stands anywhere in the parameters."""
    if isinstance(value, dict):
        return bool(value.get("cache_control")) or any(map(_is_marked, value.values()))
    return isinstance(value, list) and any(map(_is_marked, value))
