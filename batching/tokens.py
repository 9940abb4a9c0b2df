"""How many tokens a request will take up in the provider's queue, before the provider has counted them.

Counted with the model's own tokenizer where there is a public one, offline; else guessed, and said to be.
Only what a model reads counts: its input, not its parameters or its answer. The caller adds the margin
in: packing and admission add the estimates up, and ``capacity`` narrows them by what was learned.

Sources: OpenAI's model → encoding table (tiktoken 0.14); there is no public tokenizer for Claude (o200k
and a fifth is on the safe side). What an image or a file costs is a guess of ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import msgspec
import toktok

MARGIN = 1.10
"""The usual margin; a setting."""
_BYTES_PER_TOKEN = 3.5
_IMAGE_TOKENS = 2_500
_FILE_BYTES_PER_TOKEN = 40

_ENCODINGS = (
    (("gpt-oss",), "o200k_harmony"),
    (("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4", "chatgpt-4o"), "o200k_base"),
    (("gpt-4", "gpt-3.5", "text-embedding-"), "cl100k_base"),
)
_NEAR_ENOUGH = (("claude", "o200k_base", 1.2), ("gpt-", "o200k_base", 1.0))
"""Beginnings of models whose tokenizer is not public: the nearest one, and a factor on the safe side."""

# An embedded file: base64 is no text that a model reads.
_DATA = re.compile(rb'"(?:data:[^",]{0,200},)?[A-Za-z0-9+/_-]{2000,}={0,2}"')
_IMAGE = re.compile(rb'"type"\s*:\s*"(?:image_url|input_image|image)"')
_ESCAPED = b"\\u"


class Call(Protocol):
    """What is counted: a ``wire.Line`` is one."""

    @property
    def url(self) -> str:
        """The endpoint's path."""

    @property
    def model(self) -> str:
        """The model that will read it."""

    @property
    def body(self) -> bytes:
        """The body, as valid JSON."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The tokens of one request, margin included; at least 1."""

    tokens: int
    is_exact: bool
    """False: there is no public tokenizer for its model, or it holds more than text."""


class _Text(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"")


class _Responses(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    text: msgspec.Raw = msgspec.Raw(b"")


class _Chat(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    functions: msgspec.Raw = msgspec.Raw(b"")
    response_format: msgspec.Raw = msgspec.Raw(b"")


class _Completions(msgspec.Struct):
    prompt: msgspec.Raw = msgspec.Raw(b"")
    suffix: msgspec.Raw = msgspec.Raw(b"")


class _Input(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"")


class _Messages(msgspec.Struct):
    system: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")


_READ: Mapping[str, msgspec.json.Decoder[msgspec.Struct]] = {
    path: msgspec.json.Decoder(fields)
    for path, fields in {
        "/v1/responses": _Responses,
        "/v1/chat/completions": _Chat,
        "/v1/completions": _Completions,
        "/v1/embeddings": _Input,
        "/v1/moderations": _Input,
        "/v1/messages": _Messages,
    }.items()
}
_text = msgspec.json.Decoder(_Text)


def estimates(calls: Sequence[Call], *, margin: float = MARGIN) -> list[Estimate]:
    """Return the estimate of each call, in their order. Some thousands at once are counted fastest."""
    read = [_Reading(call) for call in calls]
    by_encoding: dict[str, list[_Reading]] = {}
    for one in read:
        if one.encoding:
            by_encoding.setdefault(one.encoding, []).append(one)
    for encoding, together in by_encoding.items():
        counts = toktok.batch_count([one.text for one in together], encoding, threads=1)
        for one, count in zip(together, counts, strict=True):
            one.counted = count
    return [one.estimate(margin) for one in read]


class _Reading:
    """One call while it is counted."""

    __slots__ = ("counted", "encoding", "extra", "factor", "is_exact", "text")

    def __init__(self, call: Call) -> None:
        content = _content(call)
        self.encoding, self.factor, self.is_exact = encoding_of(call.model)
        self.counted, self.extra = 0, 0
        if content[:1] == b"[" and b'"' not in content:  # an embedding's input may be token ids
            self.encoding, self.counted = "", content.count(b",") + 1
        if len(content) > 2_000 or b"image" in content:
            content = self._without_files(content)
        self.text = content.decode(errors="replace")
        if not self.encoding and not self.counted:
            self.counted = math.ceil(len(content) / _BYTES_PER_TOKEN)

    def _without_files(self, content: bytes) -> bytes:
        images = len(_IMAGE.findall(content))
        embedded = [len(found[0]) for found in _DATA.finditer(content)]
        # One is as often the image itself as a file beside it: the larger guess of the two counts.
        files = sum(embedded) * 3 // 4 // _FILE_BYTES_PER_TOKEN if not images else 0
        self.extra = images * _IMAGE_TOKENS + files
        self.is_exact = self.is_exact and not self.extra
        return _DATA.sub(b'""', content) if embedded else content

    def estimate(self, margin: float) -> Estimate:
        tokens = math.ceil((self.counted * self.factor + self.extra) * margin)
        return Estimate(tokens=max(1, tokens), is_exact=self.is_exact)


@lru_cache(maxsize=1_000)
def encoding_of(model: str) -> tuple[str, float, bool]:
    """Return a model's encoding, the factor on its counts, and whether the encoding is its own.

    An empty encoding: there is none that is near enough, and bytes are counted.
    """
    name = model.lower().removeprefix("ft:").rpartition("/")[2]
    for beginnings, encoding in _ENCODINGS:
        if name.startswith(beginnings):
            return encoding, 1.0, True
    for beginning, encoding, factor in _NEAR_ENOUGH:
        if name.startswith(beginning):
            return encoding, factor, False
    return "", 1.0, False


def _content(call: Call) -> bytes:
    """Return the parts of the body that the model reads, as JSON without needless escapes.

    The whole body when the endpoint is none that we know, or the body is not as it should be.
    """
    decoder = _READ.get(call.url)
    try:
        fields = msgspec.structs.asdict(decoder.decode(call.body)) if decoder else {"": call.body}
        if fields.get("text"):
            fields["text"] = _text.decode(fields["text"]).format
    except (msgspec.DecodeError, RecursionError):
        fields = {"": call.body}
    content = b" ".join(bytes(part) for part in fields.values() if part)
    if _ESCAPED in content:  # clients that escape all that is not ASCII
        content = b" ".join(_unescaped(bytes(part)) for part in fields.values() if part)
    return content


def _unescaped(part: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(part))
    except (
        msgspec.DecodeError,
        UnicodeEncodeError,
        RecursionError,
    ):  # lone surrogates, great depth
        return part
