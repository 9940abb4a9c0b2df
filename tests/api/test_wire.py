"""What a request may hold, field by field, and how a wrong one is worded."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batching.wire import ENDPOINTS, Delivery, Invalid, read_line
from tests.api.conftest import new_request

SLOWLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DEEP = '{"model":"m","x":' + "[" * 63 + "]" * 63 + "}"
TOO_DEEP = '{"model":"m","x":' + "[" * 64 + "]" * 64 + "}"


def read(**changes):
    return read_line(json.dumps(new_request(**changes)).encode())


def read_with_body(body: bytes):
    line = json.dumps(new_request(body="BODY")).encode()
    return read_line(line.replace(b'"BODY"', body))


def without(field):
    request = new_request()
    del request[field]
    return json.dumps(request).encode()


def to(**config):
    return {"delivery_config": config}


def test_body_is_kept_byte_for_byte():
    body = '{"model":"m", "n":1.10,"n":1e308,"🎉":"a—漢\\u0000\\ud83d\\ude00 \u2028"}'.encode()

    assert read_with_body(body).body == body


def test_line_breaks_between_tokens_become_spaces():
    body = b'{"model":\r\n"m",\n"a":"x\\n"}'

    assert read_with_body(body).body == b'{"model":  "m", "a":"x\\n"}'


@pytest.mark.parametrize("url", ENDPOINTS)
def test_every_endpoint_of_the_batch_api_is_taken(url):
    assert read(url=url).url == url


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"input": ["a", "b"]}, id="array of strings"),
        pytest.param({"input": [[1, 2], [3]]}, id="token arrays"),
        pytest.param({"messages": [{"role": "tool", "content": None}]}, id="tool and null"),
        pytest.param({"messages": [{"content": [{"type": "image_url"}]}]}, id="content array"),
        pytest.param({"prompt": {"id": "p"}, "unheard_of": {"a": 1}}, id="unknown parameters"),
        pytest.param({"stream": False}, id="no stream"),
    ],
)
def test_anything_in_a_body_passes_through(body):
    assert json.loads(read(body={"model": "m", **body}).body) == {"model": "m", **body}


@pytest.mark.parametrize(
    ("config", "delivery"),
    [
        ({"type": "none"}, Delivery(type="none")),
        (
            {"type": "webhook", "webhook_url": "http://python-http-webhook:8080/x?y=1"},
            Delivery(type="webhook", url="http://python-http-webhook:8080/x?y=1"),
        ),
        (
            {"type": "webhook", "webhook_url": "HTTPS://[::1]/"},
            Delivery(type="webhook", url="HTTPS://[::1]/"),
        ),
        ({"type": "rabbitmq", "rabbitmq_queue": "q"}, Delivery(type="rabbitmq", queue="q")),
        (
            {"type": "rabbitmq", "rabbitmq_exchange": "e", "rabbitmq_routing_key": "k"},
            Delivery(type="rabbitmq", exchange="e", routing_key="k"),
        ),
        ({"type": "destination", "name": "crm"}, Delivery(type="destination", name="crm")),
    ],
    ids=["none", "webhook", "webhook v6", "queue", "exchange", "destination"],
)
def test_delivery_configs(config, delivery):
    assert read(delivery_config=config).delivery == delivery


def test_optional_fields_are_read():
    line = read(
        max_wait_s=0,
        deliver_by="2026-03-01T12:00:00+02:00",
        priority=-100,
        metadata={"a": "1"},
        account="main",
    )

    assert (line.max_wait_s, line.priority, line.metadata, line.account) == (
        *(0, -100, b'{"a":"1"}', "main"),
    )
    assert line.deliver_by == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_optional_fields_may_be_null_or_absent():
    names = ("max_wait_s", "deliver_by", "priority", "metadata", "account")

    assert read(**dict.fromkeys(names)) == read()


URL, QUEUE = "/delivery_config/webhook_url", "/delivery_config/rabbitmq_queue"
WRONG = {
    "missing custom_id": (without("custom_id"), "/custom_id"),
    "missing body": (without("body"), "/body"),
    "missing delivery_config": (without("delivery_config"), "/delivery_config"),
    "not an object": (b'["a"]', ""),
    "empty custom_id": ({"custom_id": ""}, "/custom_id"),
    "long custom_id": ({"custom_id": "x" * 513}, "/custom_id"),
    "number as custom_id": ({"custom_id": 1}, "/custom_id"),
    "NUL in custom_id": ({"custom_id": "a\0"}, "/custom_id"),
    "newline in custom_id": ({"custom_id": "a\n"}, "/custom_id"),
    "empty body": ({"body": {}}, "/body/model"),
    "string as body": ({"body": "str"}, "/body"),
    "null as body": ({"body": None}, "/body"),
    "empty model": ({"body": {"model": ""}}, "/body/model"),
    "NUL in model": ({"body": {"model": "a\0"}}, "/body/model"),
    "stream": ({"body": {"model": "m", "stream": True}}, "/body/stream"),
    "method": ({"method": "GET"}, "/method"),
    "url": ({"url": "/v1/invalid"}, "/url"),
    "fax": (to(type="fax"), "/delivery_config/type"),
    "no type": (to(), "/delivery_config/type"),
    "null delivery_config": ({"delivery_config": None}, "/delivery_config"),
    "webhook without url": (to(type="webhook"), URL),
    "webhook with more": (to(type="webhook", webhook_url="http://a", x=1), "/delivery_config/x"),
    "ftp": (to(type="webhook", webhook_url="ftp://a/b"), URL),
    "no host": (to(type="webhook", webhook_url="http:///b"), URL),
    "userinfo": (to(type="webhook", webhook_url="http://u:p@a/b"), URL),
    "bad port": (to(type="webhook", webhook_url="http://a:x/b"), URL),
    "bad v6": (to(type="webhook", webhook_url="http://[a/b"), URL),
    "space in url": (to(type="webhook", webhook_url="http://a/ b"), URL),
    "long url": (to(type="webhook", webhook_url="http://a/" + "b" * 2048), URL),
    "rabbitmq without place": (to(type="rabbitmq"), QUEUE),
    "empty queue": (to(type="rabbitmq", rabbitmq_queue=""), QUEUE),
    "long queue in bytes": (to(type="rabbitmq", rabbitmq_queue="漢" * 100), QUEUE),
    "queue and exchange": (
        to(type="rabbitmq", rabbitmq_queue="q", rabbitmq_exchange="e"),
        "/delivery_config/rabbitmq_exchange",
    ),
    "exchange without key": (
        to(type="rabbitmq", rabbitmq_exchange="e"),
        "/delivery_config/rabbitmq_routing_key",
    ),
    "key without exchange": (
        to(type="rabbitmq", rabbitmq_routing_key="k"),
        "/delivery_config/rabbitmq_exchange",
    ),
    "none with more": (to(type="none", name="x"), "/delivery_config/name"),
    "nameless destination": (to(type="destination", name=""), "/delivery_config/name"),
    "unknown field": ({"extra": 1}, "/extra"),
    "unknown field with slash": ({"a/b~c": 1}, "/a~1b~0c"),
    "negative wait": ({"max_wait_s": -1}, "/max_wait_s"),
    "31 days": ({"max_wait_s": 31 * 86400}, "/max_wait_s"),
    "fraction": ({"max_wait_s": 1.5}, "/max_wait_s"),
    "true as number": ({"priority": True}, "/priority"),
    "priority": ({"priority": 101}, "/priority"),
    "huge number": (b'{"priority":' + b"9" * 4301 + b"}", "/priority"),
    "naive time": ({"deliver_by": "2026-03-01T12:00:00"}, "/deliver_by"),
    "no time": ({"deliver_by": "soon"}, "/deliver_by"),
    "before time": ({"deliver_by": "0001-01-01T00:00:00+14:00"}, "/deliver_by"),
    "17 pairs": ({"metadata": {str(i): "" for i in range(17)}}, "/metadata"),
    "number in metadata": ({"metadata": {"a": 1}}, "/metadata"),
    "long key": ({"metadata": {"a" * 65: ""}}, "/metadata"),
    "long value": ({"metadata": {"a": "b" * 513}}, "/metadata"),
    "NUL in metadata": ({"metadata": {"a": "\0"}}, "/metadata"),
}


@pytest.mark.parametrize(("sent", "pointer"), WRONG.values(), ids=WRONG)
def test_wrong_fields_are_named(sent, pointer):
    with pytest.raises(Invalid) as refused:
        read_line(sent) if isinstance(sent, bytes) else read(**sent)

    assert (refused.value.code, refused.value.pointer) == ("validation_error", pointer)
    assert "`" not in refused.value.detail.replace("`model`", "").replace("`stream`", "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param(b"", "malformed_json", id="nothing"),
        pytest.param(b"{", "malformed_json", id="broken off"),
        pytest.param(b'{"a":NaN}', "malformed_json", id="NaN"),
        pytest.param(b'{"a":"\0"}', "malformed_json", id="raw NUL"),
        pytest.param(b'{"a":"\xff"}', "invalid_encoding", id="no UTF-8"),
        pytest.param(b'{"a":"\xc0\xaf"}', "invalid_encoding", id="overlong"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "nested_too_deep", id="100,000 levels"),
    ],
)
def test_what_is_no_json_of_ours(line, code):
    with pytest.raises(Invalid) as refused:
        read_line(b'{"body":' + line + b"}" if line else b"")

    assert refused.value.code == code


@pytest.mark.parametrize(
    "text", [r"\ud800", r"\udc00 and more", r"\ud800\u0041", r"\ud800\ud800", r"\udfff\ud800"]
)
def test_half_surrogate_pairs_are_refused(text):
    with pytest.raises(Invalid) as refused:
        read_with_body(b'{"model":"m","input":"%b"}' % text.encode())

    assert refused.value.code == "malformed_json"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"model":"m","temperature":1e999}', "/body/temperature"),
        ('{"model":"m","a":[0,{"b/c":-1e999}]}', "/body/a/1/b~1c"),
        ('{"model":"m","seed":' + "9" * 4301 + "}", "/body/seed"),
        ('{"model":"m","seed":1e200000}', "/body/seed"),
        ('{"model":"m","n":1e999,"n":1}', "/body/n"),
        ('{"model":"m","seed":1' + "0" * 300 + ".5e10}", "/body/seed"),
    ],
)
def test_numbers_that_no_double_holds_are_refused(body, pointer):
    with pytest.raises(Invalid) as refused:
        read_with_body(body.encode())

    assert (refused.value.code, refused.value.pointer) == ("validation_error", pointer)


@pytest.mark.parametrize("number", ["-0", "9223372036854775808", "1E+300", "1e-999", "9" * 308])
def test_other_numbers_are_the_providers_business(number):
    body = b'{"model":"m","text":"1e999","seed":%b}' % number.encode()

    assert read_with_body(body).body == body


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_any_depth_is_refused_and_none_is_felt(depth, opened, closed):
    body = '{"model":"m","x":' + opened * depth + "1" + closed * depth + "}"

    with pytest.raises(Invalid) as refused:
        read_with_body(body.encode())

    assert refused.value.code == "nested_too_deep"


@pytest.mark.parametrize(
    ("custom_id", "is_taken"),
    [
        ("", False),
        ("a", True),
        ("a" * 65, True),
        ("漢" * 512, True),
        ("a" * 513, False),
        ("with spaces / and 🎉", True),
        ("a\u0000b", False),
        ("a\nb", False),
    ],
)
def test_custom_ids_are_short_text_without_control_characters(custom_id, is_taken):
    if is_taken:
        assert read(custom_id=custom_id).custom_id == custom_id
        return
    with pytest.raises(Invalid) as refused:
        read(custom_id=custom_id)

    assert refused.value.pointer == "/custom_id"


def test_depth_of_64_is_taken_and_65_is_not():
    assert read_with_body(DEEP.encode()).body == DEEP.encode()

    with pytest.raises(Invalid) as refused:
        read_with_body(TOO_DEEP.encode())

    assert (refused.value.code, refused.value.pointer) == ("nested_too_deep", "/body")


def test_brackets_in_strings_and_side_by_side_are_no_depth():
    body = json.dumps({"model": "m", "a": '\\"[{' * 200, "b": [[] for _ in range(200)]}).encode()

    assert read_with_body(body).body == body


@SLOWLY
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for line in (data, b'{"custom_id":' + data + b"}", b'{"delivery_config":{"type":' + data):
        with pytest.raises(Invalid):
            read_line(line)


NAMES = st.sampled_from([*new_request(), "extra", "a` - at `$.x"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([{"a": ["b"]}])


@SLOWLY
@given(st.dictionaries(NAMES, VALUES))
def test_any_json_is_read_or_refused(fields):
    more = json.dumps({**fields, "extra": 0}).encode()[1:]

    with pytest.raises(Invalid) as refused:
        read_line(json.dumps(new_request()).encode()[:-1] + b"," + more)

    assert refused.value.detail
