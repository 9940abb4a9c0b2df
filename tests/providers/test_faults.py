"""What a failed call may have done: the tables behind ProviderError."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batching.providers.base import NotFound, QueueFull, Trouble
from batching.providers.faults import MAX_WAIT_S, Call, read_error, refusal, retry_after_s

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
READ = Call(name="GET /batches/batch_1", has_effect=False)
CREATE = Call(name="POST /batches", has_effect=True)
JSON = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'


def error_with(code: str) -> bytes:
    return b'{"error":{"message":"no","type":"x","code":"%s"}}' % code.encode()


@pytest.mark.parametrize(
    ("call", "status", "body", "trouble"),
    [
        (CREATE, 400, JSON, Trouble.REFUSED),
        (CREATE, 422, b"", Trouble.REFUSED),
        (CREATE, 302, b"", Trouble.REFUSED),
        (CREATE, 401, JSON, Trouble.CREDENTIALS),
        (CREATE, 402, JSON, Trouble.CREDENTIALS),
        (CREATE, 403, b"<html>", Trouble.CREDENTIALS),
        (CREATE, 429, error_with("rate_limit_exceeded"), Trouble.RETRY),
        (CREATE, 429, error_with("insufficient_quota"), Trouble.CREDENTIALS),
        (CREATE, 400, error_with("billing_hard_limit_reached"), Trouble.CREDENTIALS),
        (CREATE, 429, b"<html>Too many requests</html>", Trouble.UNKNOWN),
        (CREATE, 408, JSON, Trouble.UNKNOWN),
        (CREATE, 409, JSON, Trouble.UNKNOWN),
        (CREATE, 500, JSON, Trouble.UNKNOWN),
        (CREATE, 503, b"", Trouble.UNKNOWN),
        (READ, 408, JSON, Trouble.RETRY),
        (READ, 429, b"<html>", Trouble.RETRY),
        (READ, 503, b"", Trouble.RETRY),
        (READ, 400, JSON, Trouble.REFUSED),
    ],
)
def test_status_tells_what_may_have_happened(call, status, body, trouble):
    error = refusal(call, status, headers={}, body=body, now=NOW)

    assert (error.trouble, error.status) == (trouble, status)


def test_full_queue_is_its_own_error_and_keeps_the_wish():
    body = error_with("token_limit_exceeded")

    error = refusal(CREATE, 400, headers={"retry-after": "90"}, body=body, now=NOW)

    assert isinstance(error, QueueFull)
    assert (error.trouble, error.after_s, error.status) == (Trouble.RETRY, 90.0, 400)


def test_not_found_keeps_the_code():
    error = refusal(READ, 404, headers={}, body=error_with("gone"), now=NOW)

    assert isinstance(error, NotFound)
    assert error.code == "gone"


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e12"}, MAX_WAIT_S),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_providers_wish_is_read_in_every_form(headers, after_s):
    assert retry_after_s(headers, now=NOW) == after_s


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (JSON, "invalid_request_error", "no"),
        (b'{"error":"no"}', "", "no"),
        (b'{"error":"no","code":"c"}', "c", "no"),
        (b'{"detail":"no"}', "", "no"),
        (b'{"detail":[{"loc":["body"],"msg":"no","type":"missing"}]}', "missing", "no"),
        (b'{"detail":{"error":{"message":"no","code":400}}}', "400", "no"),
        (b'{"message":"no"}', "", "no"),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}',
            "overloaded_error",
            "no",
        ),
        (b'{"error":{"message":"a\\u0000\\ud800b"}}', "", "a\ufffd\ufffdb"),
    ],
)
def test_error_body_is_read_in_every_shape(body, code, message):
    error = read_error(body)

    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"7", b"{}", b'{"error":null}', b'{"error":7}', b"[" * 100_000]
)
def test_body_without_an_error_has_none(body):
    assert read_error(body) is None
