"""A provider's answer line, cut into the members that are handed on, each as the bytes that came.

Called by whatever shows or delivers an answer. Nothing is decoded further and nothing is re-encoded: an
answer was paid for, so one that a strict reader refuses (half a surrogate pair) is cut all the same. Clients
see one shape, OpenAI's; an Anthropic result is put into it, its message as the body of a response.
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


class _Line(Members, frozen=True):
    custom_id: Raw = NULL
    result: Raw = NULL
    """Anthropic's, in place of response and error."""


_strict = msgspec.json.Decoder(_Line)
_strict_object = msgspec.json.Decoder(dict[str, Raw])
_NOT_RUN: Final = {
    b'"canceled"': Raw(b'{"code":"batch_cancelled","message":"the batch was cancelled"}'),
    b'"expired"': Raw(b'{"code":"batch_expired","message":"the batch expired"}'),
}
_UNKNOWN: Final = Raw(b'{"code":"unknown_result","message":"the provider\'s line is stored"}')


def members(line: bytes) -> Members:
    """Cut one answer line that was stored. Raises ValueError when it is no JSON object."""
    try:
        found = _strict.decode(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        cut = _cut(line)
        found = _Line(**{name: cut[name] for name in _Line.__struct_fields__ if name in cut})
    return found if bytes(found.result) == b"null" else _of_result(found)


def _of_result(line: _Line) -> Members:
    """Put an Anthropic result into response or error; its id is the message's, else the line's own."""
    result = object_members(bytes(line.result))
    kind = bytes(result.get("type", NULL))
    if kind == b'"succeeded"':
        message = result.get("message", NULL)
        response = b'{"status_code":200,"request_id":null,"body":%b}' % bytes(message)
        return Members(
            id=object_members(bytes(message)).get("id", line.custom_id), response=Raw(response)
        )
    if kind == b'"errored"':
        return Members(id=line.custom_id, error=_error(result.get("error", NULL)))
    return Members(id=line.custom_id, error=_NOT_RUN.get(kind, _UNKNOWN))


def _error(raw: Raw) -> Raw:
    """Return type and message, which are two levels down, as code and message; what has none as it is."""
    try:
        inner = object_members(bytes(object_members(bytes(raw))["error"]))
        return Raw(b'{"code":%b,"message":%b}' % (bytes(inner["type"]), bytes(inner["message"])))
    except (ValueError, KeyError):
        return raw


def object_members(raw: bytes) -> dict[str, Raw]:
    """Cut a JSON object that came in an answer. Raises ValueError when it is none."""
    try:
        return _strict_object.decode(raw)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _cut(raw)


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
