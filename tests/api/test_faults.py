"""Bad bytes at every door: refused in its own words, or passed on as they came, and never half stored."""

from __future__ import annotations

import json

import pytest

from batching.models import Request, RequestBody
from delivery.models import Rejection
from tests.api import doors
from tests.api.doors import DOORS, TAKEN

pytestmark = pytest.mark.usefixtures("project")

NO_JSON, NO_UTF8 = "not valid JSON", "not UTF-8"
TOO_DEEP, TOO_BIG = "deeper than 64", "too big for a double"
FAULTS = {
    "65 arrays": (b'"x":' + b"[" * 65 + b"]" * 65, TOO_DEEP),
    "100,000 arrays": (b'"x":' + b"[" * 100_000 + b"]" * 100_000, TOO_DEEP),
    "5,000 objects": (b'"x":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000, TOO_DEEP),
    "NaN": (b'"x":NaN', NO_JSON),
    "Infinity": (b'"x":-Infinity', NO_JSON),
    "endless": (b'"x":1e999', TOO_BIG),
    "4,301 digits": (b'"x":' + b"9" * 4_301, TOO_BIG),
    "a million digits": (b'"x":' + b"9" * 1_000_000, TOO_BIG),
    "no UTF-8": (b'"x":"\xff"', NO_UTF8),
    "overlong UTF-8": (b'"x":"\xc0\xaf"', NO_UTF8),
    "half a pair": (rb'"x":"\ud800"', NO_JSON),
    "raw NUL": (b'"x":"\0"', NO_JSON),
}


@pytest.fixture(autouse=True)
def both_providers(project):
    doors.an_anthropic_account()


def ids():
    return set(Request.objects.values_list("custom_id", flat=True)) - {"before"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", FAULTS)
def test_bytes_that_a_strict_reader_refuses_are_refused(api, door, name):
    member, words = FAULTS[name]

    told = DOORS[door](api, member)

    assert not told.is_taken
    assert words.lower() in told.words.lower()
    assert told.status in {"bulk": (202,), "batch": (200,), "queue": (0,)}.get(door, (400, 422))
    assert told.where.endswith("x") == (words == TOO_BIG)
    assert ids() == set()
    assert Rejection.objects.exists() == (door == "queue")


PASSED_ON = {
    "doubled keys": b'"x":1,"x":2',
    "numbers": b'"x":[1.10,1.0,1E5,-0,9007199254740993,9223372036854775808,1e308,%b]'
    % (b"9" * 308),
    "texts": '"x":"\\u0000\u2028\u2029\x85🎉漢\\ud83c\\udf89","\\u0000":"=cmd() <script>{{7*7}}"'.encode(),
    "nested 63 deep": b'"x":' + b"[" * 63 + b"]" * 63,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", PASSED_ON)
def test_what_json_allows_is_passed_on_byte_for_byte(api, door, name):
    member = PASSED_ON[name]

    assert DOORS[door](api, member) == TAKEN

    body = doors.of_anthropic if door == "messages" else doors.of_openai
    assert bytes(RequestBody.objects.get(request__custom_id="a").body) == body(member)


IDS = (
    ('""', ()),
    ('"a"', DOORS),
    (f'"{"a" * 64}"', DOORS),
    (f'"{"a" * 65}"', DOORS.keys() - {"messages"}),
    (f'"{"a" * 512}"', DOORS.keys() - {"messages"}),
    (f'"{"a" * 513}"', ()),
    ('"a b/c"', DOORS.keys() - {"messages"}),
    ('"漢 🎉"', DOORS.keys() - {"messages", "call"}),
    (r'"a\u0000b"', ()),
    (r'"a\nb"', ()),
)


@pytest.mark.parametrize("door", DOORS)
def test_a_custom_id_is_taken_or_named(api, door):
    for token, takers in IDS:
        Request.objects.all().delete()

        told = DOORS[door](api, b"", token.encode())

        assert told.is_taken == (door in takers), token
        assert ids() == ({json.loads(token)} if told.is_taken else set())
        assert told.is_taken or told.where.replace("-", "_").lower().endswith("custom_id")


def test_the_same_id_twice_in_one_upload_is_one_request_or_a_named_fault(api):
    one, other = (doors.request(doors.of_openai(member)) for member in (b"", b'"x":1'))

    bulk = api.post("/api/requests/bulk", b"\n".join((one, one, other))).json()
    (twice, differs) = doors.arrive(b"[%b,%b]" % (one, one), b"[%b,%b]" % (one, other))

    assert (bulk["accepted"], bulk["duplicates"], bulk["rejected"]) == (1, 1, 1)
    assert [(e["line"], e["code"]) for e in bulk["errors"]] == [(3, "duplicate_custom_id")]
    assert (len(twice.taken), twice.faults) == (2, [])
    assert [(f.code, f.pointer) for f in differs.faults] == [
        ("duplicate_custom_id", "/1/custom_id")
    ]
    assert ids() == {"a"}
