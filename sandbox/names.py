"""The models that the sandbox lists, and the dated names under which they answer."""

from __future__ import annotations

_DATED = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
}
MODELS = (*_DATED, "gpt-3.5-turbo-instruct", "text-embedding-3-small", "text-embedding-3-large",
          "text-embedding-ada-002", "omni-moderation-latest")  # fmt: skip


def dated(model: str) -> str:
    """Return the dated name under which a model answers, when it has one."""
    return _DATED.get(model, model)
