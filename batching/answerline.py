"""A provider's answer line, cut into the members that are handed on, each as the bytes that came.

Called by whatever shows or delivers an answer. Nothing is decoded further and nothing is re-encoded: an
answer was paid for, so one that a strict reader refuses (half a surrogate pair) is cut all the same.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec
from msgspec import Raw

NULL: Final = Raw(b"null")
_lenient = json.JSONDecoder(strict=False)


class Members(msgspec.Struct, frozen=True):
    """What a line holds; `null` stands for what it lacks."""

    id: Raw = NULL
    response: Raw = NULL
    error: Raw = NULL


_strict = msgspec.json.Decoder(Members)


def members(line: bytes) -> Members:
    """Cut one answer line that was stored. Raises ValueError when it is no JSON object."""
    try:
        return _strict.decode(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        found = _cut(line)
        return Members(**{name: found[name] for name in Members.__struct_fields__ if name in found})


def _cut(line: bytes) -> dict[str, Raw]:
    """Cut where the values begin and end; one character of the text is one byte of the line."""
    text = line.decode("latin-1")
    found: dict[str, Raw] = {}
    at = _past("{", text, 0)
    while text[at : at + 1] != "}":
        name, at = _lenient.raw_decode(text, at)
        start = _past(":", text, at)
        _, end = _lenient.raw_decode(text, start)
        found[name] = Raw(line[start:end])
        at = _token(text, end)
        if text[at : at + 1] != "}":
            at = _past(",", text, at)
    return found


def _past(sign: str, text: str, at: int) -> int:
    """Return where the token after ``sign`` begins. Raises ValueError when there is another one."""
    at = _token(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"no JSON object: expected {sign} at byte {at}")
    return _token(text, at + 1)


def _token(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at
