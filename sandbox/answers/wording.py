"""The words a pretended model finds: prose that takes up the question, or JSON of a given schema.

Wording depends on the body's digest alone. Nothing is understood here, and nothing is cut.
"""

from __future__ import annotations

import json
from typing import Any

from sandbox.answers.call import Call

_OPENINGS = (
    "In short, about “{}”:",
    "You asked: “{}”.",
    "Regarding “{}”,",
    "Here is what matters on “{}”.",
    "Thanks for “{}”.",
)
_SENTENCES = (
    "The answer depends on the context, yet the main point is clear.",
    "Start with the simplest case and build on it.",
    "Two things stand out: the cost, and the time it takes.",
    "Most sources agree on this, with small differences in wording.",
    "A good next step is to try it on a small sample.",
    "There is a trade-off here between speed and accuracy.",
    "It helps to write the assumptions down first.",
    "This holds in general, with a few exceptions.",
)


def prose(call: Call, question: str) -> str:
    """Return a sentence that quotes the question, and one to four more."""
    opening = _OPENINGS[call.pick(0, len(_OPENINGS))].format(excerpt(question))
    first, length = call.pick(4, len(_SENTENCES)), 1 + call.pick(8, 4)
    return " ".join([opening, *(_SENTENCES * 2)[first : first + length]])


def excerpt(question: str, length: int = 80) -> str:
    """Return the beginning of the question on one line; lone surrogates are shown as �."""
    short = " ".join(question[: length * 2].split())
    short = short if len(short) <= length else short[:length].rstrip() + "…"
    return short.encode("utf-8", "replace").decode("utf-8") or "your request"


def structured(call: Call, question: str, form: object) -> str | None:
    """Return JSON when ``response_format`` asks for it, else None."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        return json.dumps({"answer": prose(call, question)}, ensure_ascii=False)
    if kind == "json_schema" and isinstance(form, dict):
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        return json.dumps(_instance(schema or {}, call, excerpt(question)), ensure_ascii=False)
    return None


def _instance(schema: dict[str, Any], call: Call, text: str, depth: int = 0) -> Any:
    """Return a value that fits the plain parts of a schema (no $ref, no pattern)."""
    if schema.get("enum"):
        return schema["enum"][call.pick(16, len(schema["enum"]))]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" and depth < 8:
        members = schema.get("properties", {})
        return {name: _instance(part, call, text, depth + 1) for name, part in members.items()}
    if kind == "array" and depth < 8:
        return [_instance(schema.get("items", {}), call, text, depth + 1)]
    plain = {"string": text, "integer": call.pick(20, 100), "number": call.pick(20, 100) / 10}
    return plain.get(kind, kind == "boolean" or None)
