"""A long JSON text is cut into its values wherever the wire cuts it into pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.api.jsonstream import JsonText, TooLong
from batching.wire import Invalid

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def cut(data: bytes, size: int) -> JsonText:
    return JsonText(iter([data[at : at + size] for at in range(0, len(data), size)]))


def read(data: bytes, size: int = 3, longest: int = 1_000) -> dict:
    """Read an object; its member `many` as a stream."""
    text, found = cut(data, size), {}
    for name in text.members():
        found[name] = list(text.elements(longest)) if name == "many" else text.value(longest)
    text.end()
    return found


@settings(max_examples=150, deadline=None)
@given(many=st.lists(VALUES, max_size=5), one=VALUES, plain=st.booleans(), size=st.integers(1, 40))
def test_every_value_comes_out_as_its_own_bytes(many, one, plain, size):
    form = {"ensure_ascii": plain, "separators": (" ,\n", "\t: ")}
    data = json.dumps({"one": one, "many": many}, **form).encode("utf-8", "surrogatepass")

    found = read(data, size, longest=100_000)

    assert json.loads(found["one"]) == one
    assert found["many"] == [
        json.dumps(each, **form).encode("utf-8", "surrogatepass") for each in many
    ]


@pytest.mark.parametrize("kept", range(1, 44))
def test_a_text_that_breaks_off_is_no_json(kept):
    whole = rb'{"many": [{"a": "b\"]"}, [1, "\\"]], "x": 17}'

    with pytest.raises(Invalid, match="not valid JSON"):
        read(whole[:kept])
    assert len(read(whole)["many"]) == 2


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_value_over_its_bound_is_not_held(size):
    held = []

    def pieces():
        for at in range(0, 100_000, size):
            held.append(at)
            yield b'{"many": ["'[at : at + size] or b"x" * size

    text = JsonText(pieces())
    assert next(text.members()) == "many"
    with pytest.raises(TooLong):
        list(text.elements(500))
    assert len(held) * size <= 3_000


def test_nesting_has_a_bound_before_its_end_has_come():
    with pytest.raises(Invalid) as caught:
        read(b'{"many": ' + b"[" * 200, size=50)
    assert caught.value.code == "nested_too_deep"
