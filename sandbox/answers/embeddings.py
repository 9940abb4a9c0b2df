"""/v1/embeddings: one vector of length 1 for each input, cheap enough for 50,000 lines.

A vector is one fixed vector, turned round and with blocks of it negated, both by the input's
digest: distinct for distinct inputs, exactly of length 1, and put together from ready-made pieces
of JSON instead of computed. Vectors say nothing about meaning.
"""

from __future__ import annotations

import array
import base64
import functools
import hashlib
import math
import random
from dataclasses import dataclass
from typing import Any

import msgspec

from sandbox.answers.call import Answer, Call, require, tokens_in
from sandbox.errors import ApiError, invalid_value, out_of_range
from sandbox.objects import TokenUse

_SIZES = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
_BLOCKS = 16


def embed(call: Call) -> Answer:
    """Answer with one embedding per input, honouring ``dimensions`` and ``encoding_format``."""
    model = call.model
    inputs = _inputs(require(call.body, "input", (str, list)))
    base = _base(_dimensions(call.body, model))
    encoding = call.body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid_value("encoding_format", encoding, "'float' and 'base64'")
    data = [
        {"object": "embedding", "index": index, "embedding": base.vector(call, text, encoding)}
        for index, text in enumerate(inputs)
    ]
    tokens = sum(_tokens(text) for text in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": model, "usage": usage}
    return Answer(status=200, body=body, usage=TokenUse(input=tokens))


def count_inputs(value: Any) -> int:
    """Return how many vectors an ``input`` asks for; a list of token numbers is one input."""
    if not isinstance(value, list) or (value and isinstance(value[0], int)):
        return 1
    return len(value)


def _inputs(value: str | list[Any]) -> list[Any]:
    inputs = value if isinstance(value, list) and count_inputs(value) > 1 else [value]
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int):
        inputs = value
    if len(inputs) > 2048:
        raise ApiError(
            400,
            "Invalid 'input': at most 2048 inputs.",
            param="input",
            code="array_above_max_length",
        )
    if any(not isinstance(text, str | list) or not text for text in inputs):
        raise ApiError(400, "'$.input' is invalid. Please check the API reference.", param="input")
    return inputs


def _tokens(text: str | list[Any]) -> int:
    return len(text) if isinstance(text, list) else tokens_in(text)


def _dimensions(body: dict[str, Any], model: str) -> int:
    full = _SIZES.get(model, 1536)
    wanted = body.get("dimensions")
    if wanted is None:
        return full
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        raise ApiError(
            400, "Invalid type for 'dimensions'.", param="dimensions", code="invalid_type"
        )
    if not 1 <= wanted <= full:
        raise out_of_range("dimensions", wanted, low=1, high=full)
    return wanted


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The fixed vector of one size, twice in a row (to be turned round), as numbers and as JSON."""

    size: int
    plus: list[str]
    minus: list[str]
    numbers: array.array[float]
    negated: array.array[float]

    def vector(self, call: Call, text: object, encoding: str) -> object:
        """Return the vector of one input as ready-made JSON, or as base64 of 32-bit floats."""
        name = repr(text).encode("utf-8", "surrogatepass")
        draw = hashlib.blake2b(name, digest_size=8, key=call.model.encode()[:64]).digest()
        turn = int.from_bytes(draw[:4], "big") % self.size
        signs = int.from_bytes(draw[4:], "big")
        edges = [self.size * block // _BLOCKS for block in range(_BLOCKS + 1)]
        blocks = [
            (signs >> block & 1, slice(turn + edges[block], turn + edges[block + 1]))
            for block in range(_BLOCKS)
        ]
        if encoding == "base64":
            packed = b"".join(
                (self.negated if negate else self.numbers)[part].tobytes()
                for negate, part in blocks
            )
            return base64.b64encode(packed).decode()
        pieces = [
            piece
            for negate, part in blocks
            for piece in (self.minus if negate else self.plus)[part]
        ]
        return msgspec.Raw(f"[{','.join(pieces)}]".encode())


@functools.lru_cache(maxsize=8)
def _base(size: int) -> _Base:
    chance = random.Random(size)  # noqa: S311  # a vector, no secret
    raw = [chance.gauss(0.0, 1.0) for _ in range(size)]
    length = math.sqrt(sum(value * value for value in raw))
    values = [value / length for value in raw] * 2
    return _Base(
        size=size,
        plus=[f"{value:.9f}" for value in values],
        minus=[f"{-value:.9f}" for value in values],
        numbers=array.array("f", values),
        negated=array.array("f", (-value for value in values)),
    )
