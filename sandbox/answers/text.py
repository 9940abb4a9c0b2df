"""/v1/responses, /v1/chat/completions and /v1/completions: text that comes back to what was asked.

Decides what a pretended model writes (wording.py), how much of it fits the caller's token limit,
and what it counts as used. Shapes follow the types of the openai SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.answers import wording
from sandbox.answers.call import Answer, Call, require, tokens_in
from sandbox.errors import ApiError
from sandbox.names import dated
from sandbox.objects import TokenUse, responses_usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What was written, and whether the token limit cut it off."""

    text: str
    is_cut: bool
    reasoning: int
    """Tokens thought before writing; 0 with models that don't."""

    @property
    def tokens(self) -> int:
        """What it counts as output."""
        return tokens_in(self.text) + self.reasoning


def respond(call: Call) -> Answer:
    """Answer a /v1/responses body."""
    model = call.model
    asked = list(texts(require(call.body, "input", (str, list))))
    _check_temperature(call.body)
    written = write(call, asked, _limit(call.body, "max_output_tokens"), _responses_format(call))
    usage = _use(call, [str(call.body.get("instructions") or ""), *asked], written.tokens)
    usage.reasoning = written.reasoning
    body = _response_settings(call.body) | {
        "id": f"resp_{call.identity}",
        "object": "response",
        "created_at": call.created_at,
        "status": "incomplete" if written.is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if written.is_cut else None,
        "model": dated(model),
        "output": _output(call, written),
        "usage": responses_usage(usage),
    }
    return Answer(status=200, body=body, usage=usage)


def chat(call: Call) -> Answer:
    """Answer a /v1/chat/completions body."""
    model = call.model
    messages = require(call.body, "messages", list)
    _check_messages(messages)
    _check_temperature(call.body)
    asked = list(texts(messages))
    limit = _limit(call.body, "max_completion_tokens", "max_tokens")
    written = write(call, asked, limit, call.body.get("response_format"))
    choices = [_choice(written, index) for index in range(_count(call.body))]
    usage = _use(call, asked, written.tokens * len(choices), overhead=3 + 4 * len(messages))
    usage.reasoning = written.reasoning * len(choices)
    body = {
        "id": f"chatcmpl-{call.identity}",
        "object": "chat.completion",
        "created": call.created_at,
        "model": dated(model),
        "choices": choices,
        "usage": _completion_usage(usage),
        "service_tier": "default",
        "system_fingerprint": f"fp_{call.digest[:5].hex()}",
    }
    return Answer(status=200, body=body, usage=usage)


def complete(call: Call) -> Answer:
    """Answer a /v1/completions body: ``n`` texts for each prompt."""
    model = call.model
    prompt = require(call.body, "prompt", (str, list))
    prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    asked = list(texts(prompts))
    _check_temperature(call.body)
    limit = _limit(call.body, "max_tokens")
    written = [write(call, [text], limit, None) for text in asked or [""]]
    choices = [
        {"text": part.text, "index": index, "logprobs": None, "finish_reason": _reason(part)}
        for index, part in enumerate(part for part in written for _ in range(_count(call.body)))
    ]
    usage = _use(call, asked, sum(part.tokens for part in written) * _count(call.body))
    body = {
        "id": f"cmpl-{call.identity}",
        "object": "text_completion",
        "created": call.created_at,
        "model": dated(model),
        "choices": choices,
        "usage": _completion_usage(usage),
    }
    return Answer(status=200, body=body, usage=usage)


def write(call: Call, asked: list[str], limit: int | None, form: object) -> Text:
    """Write an answer to the last of the texts; ``limit`` in tokens, ``form`` a response_format."""
    question = next((text for text in reversed(asked) if text.strip()), "")
    text = wording.structured(call, question, form) or wording.prose(call, question)
    thinks = call.model.startswith(("gpt-5", "o1", "o3", "o4"))
    reasoning = 64 * (1 + call.pick(8, 6)) if thinks else 0
    room = None if limit is None else max(0, limit - reasoning)
    is_cut = room is not None and tokens_in(text) > room
    if is_cut and room is not None:
        text, reasoning = text[: room * 4], min(reasoning, limit or 0)
    return Text(text=text + call.suffix, is_cut=is_cut, reasoning=reasoning)


def _use(call: Call, asked: list[str], output: int, overhead: int = 3) -> TokenUse:
    tokens = overhead + sum(tokens_in(text) for text in asked)
    # Long prompts come from the cache now and then, in steps of 128 as OpenAI counts them.
    cached = (tokens - 1) // 128 * 128 if tokens >= 1024 and call.pick(12, 3) == 0 else 0
    return TokenUse(input=tokens, cached=cached, output=output)


def texts(value: object) -> Iterator[str]:
    """Yield every text in messages, input parts or prompts, in their order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, dict):
        for name in ("text", "content", "output", "arguments"):
            yield from texts(value.get(name))


def _limit(body: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise ApiError(400, f"Invalid type for '{name}'.", param=name, code="invalid_type")
        if value < 1:
            raise ApiError(
                400,
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got "
                f"{value} instead.",
                param=name,
                code="integer_below_min_value",
            )
        return value
    return None


def _count(body: dict[str, Any]) -> int:
    wanted = body.get("n")
    return wanted if isinstance(wanted, int) and 1 <= wanted <= 128 else 1


def _check_messages(messages: list[Any]) -> None:
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            name = f"messages[{index}].role"
            raise ApiError(
                400,
                f"Missing required parameter: '{name}'.",
                param=name,
                code="missing_required_parameter",
            )


def _check_temperature(body: dict[str, Any]) -> None:
    value = body.get("temperature")
    if isinstance(value, int | float) and value > 2:
        raise ApiError(
            400,
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got "
            f"{value} instead.",
            param="temperature",
            code="decimal_above_max_value",
        )


def _reason(written: Text) -> str:
    return "length" if written.is_cut else "stop"


def _choice(written: Text, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": written.text,
        "refusal": None,
        "annotations": [],
    }
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": _reason(written),
    }


def _completion_usage(usage: TokenUse) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _output(call: Call, written: Text) -> list[dict[str, Any]]:
    thought = {"id": f"rs_{call.identity}", "type": "reasoning", "summary": []}
    part = {"type": "output_text", "text": written.text, "annotations": [], "logprobs": []}
    message = {
        "id": f"msg_{call.identity}",
        "type": "message",
        "status": "incomplete" if written.is_cut else "completed",
        "role": "assistant",
        "content": [part],
    }
    return [thought, message] if written.reasoning else [message]


def _responses_format(call: Call) -> object:
    """Return the format in the shape that chat completions use."""
    text = call.body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": form}
    return form


def _response_settings(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a Response repeats of its request, with OpenAI's defaults."""
    defaults: dict[str, Any] = {
        "background": False,
        "error": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
    }
    given = {name: body[name] for name in defaults if body.get(name) is not None}
    return defaults | given | {"error": None, "service_tier": "default"}
