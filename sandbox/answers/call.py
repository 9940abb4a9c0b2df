"""One call to a pretended model, and its answer: the values the endpoints share.

Decides how randomness is drawn from the body and how tokens are counted; never what an answer
says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import ApiError
from sandbox.objects import TokenUse


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one call brings."""

    status: int
    body: dict[str, Any]
    usage: TokenUse = field(default_factory=TokenUse)


@dataclass(kw_only=True, slots=True)
class Call:
    """One call: its body, and what makes its answer repeatable."""

    body: dict[str, Any]
    digest: bytes
    """32 bytes drawn from the seed and the body: the source of everything random."""
    identity: str
    """What the ids in the answer are made of; two calls with one body differ in it."""
    created_at: int
    """Unix seconds."""
    suffix: str = ""
    """Put at the end of every text of the answer."""
    is_known_model: Callable[[str], bool] = lambda _model: True
    """Whether the pretended provider has a model; asked by endpoints that find out this late."""
    is_batched: bool = True
    """False for a call that is answered at once."""

    @property
    def model(self) -> str:
        """The model asked for; raises ApiError when there is none."""
        model = self.body.get("model")
        if not isinstance(model, str) or not model:
            raise ApiError(400, "you must provide a model parameter", param="model")
        return model

    def pick(self, position: int, choices: int) -> int:
        """Return one of ``choices`` numbers from 0, the same for the same body."""
        return int.from_bytes(self.digest[position : position + 4], "big") % choices


def digest_of(seed: int, endpoint: str, raw_body: bytes) -> bytes:
    """Return what makes the answer to a body repeatable."""
    return hashlib.blake2b(
        raw_body, digest_size=32, key=str(seed).encode(), person=endpoint.encode()[-16:]
    ).digest()


def tokens_in(text: str) -> int:
    """Count tokens the rough way: four characters each."""
    return -(-len(text) // 4)


def require(body: dict[str, Any], name: str, kinds: type | tuple[type, ...]) -> Any:
    """Return a member of the body; raise ApiError when it is missing, empty or of another type."""
    value = body.get(name)
    if value is None:
        raise ApiError(
            400,
            f"Missing required parameter: '{name}'.",
            param=name,
            code="missing_required_parameter",
        )
    if not isinstance(value, kinds):
        raise ApiError(400, f"Invalid type for '{name}'.", param=name, code="invalid_type")
    if isinstance(value, list) and not value:
        raise ApiError(
            400,
            f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.",
            param=name,
            code="empty_array",
        )
    return value
