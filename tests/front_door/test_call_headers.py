"""What a call of one request says about waiting."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from batching.api.errors import ApiError
from batching.api.openai.call_headers import is_tried_again, wait_of


def waits(**headers):
    """Return how long a call with these headers waits, and whether that is confirmed."""
    wait = wait_of(RequestFactory().post("/v1/responses", headers=headers), default_s=630)
    return wait.held_s, wait.is_preference


@pytest.mark.parametrize(
    ("prefer", "seconds", "is_confirmed"),
    [
        ("wait=10", 10, True),
        ("wait=0", 0, True),
        (' Wait = "10" ', 10, True),
        ("respond-async, wait=10", 10, True),
        ("wait=10; foo, wait=20", 10, True),
        ("wait=999999999", 3600, True),
        ("respond-async", 0, False),
        ("return=minimal", 630, False),
        ("", 630, False),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(prefer, seconds, is_confirmed):
    assert waits(Prefer=prefer) == (seconds, is_confirmed)


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=9999999999"])
def test_wait_that_is_no_number_of_seconds_is_refused(prefer):
    with pytest.raises(ApiError, match="whole seconds"):
        waits(Prefer=prefer)


def test_our_own_header_goes_first():
    assert waits(**{"Prefer": "wait=10", "X-Batcher-Wait": "20"}) == (20, False)


@pytest.mark.parametrize(
    ("timeout", "held_s"), [("60", 61), ("0.5", 1.5), ("600.0", 601), ("", 630), ("soon", 630)]
)
def test_call_is_held_no_longer_than_its_client_listens(timeout, held_s):
    assert waits(**{"X-Stainless-Read-Timeout": timeout})[0] == held_s


@pytest.mark.parametrize(("count", "is_again"), [("0", False), ("", False), ("1", True)])
def test_sdk_tells_when_it_tries_again(count, is_again):
    request = RequestFactory().post("/", headers={"X-Stainless-Retry-Count": count})

    assert is_tried_again(request) == is_again
