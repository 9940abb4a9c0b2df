"""/v1/moderations: one verdict per input, flagged when an input holds a word that sounds violent.

Moderations carry no usage. Decides nothing about anybody's content; the scores are pretence.
"""

from __future__ import annotations

import json
from typing import Any

from sandbox.answers.call import Answer, Call, require

_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
_VIOLENT = ("kill", "murder", "attack", "stab", "shoot")


def moderate(call: Call) -> Answer:
    """Answer with one result per input; a list of content parts is one input."""
    value = require(call.body, "input", (str, list))
    is_many = isinstance(value, list) and all(isinstance(part, str) for part in value)
    inputs = value if is_many else [value]
    body = {
        "id": f"modr-{call.identity}",
        "model": call.body.get("model") or "omni-moderation-latest",
        "results": [_verdict(call, part) for part in inputs],
    }
    return Answer(status=200, body=body)


def _verdict(call: Call, part: Any) -> dict[str, Any]:
    text = (part if isinstance(part, str) else json.dumps(part)).lower()
    flagged = any(word in text for word in _VIOLENT)
    scores = {
        name: round((call.pick(place, 1000) + 1) / 1_000_000, 6)
        for place, name in enumerate(_CATEGORIES)
    }
    if flagged:
        scores["violence"] = 0.5 + call.pick(0, 400) / 1000
    return {
        "flagged": flagged,
        "categories": {name: scores[name] >= 0.5 for name in _CATEGORIES},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
