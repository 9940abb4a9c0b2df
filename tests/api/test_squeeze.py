"""Answers are gzipped for those who ask, and only when that is worth it."""

from __future__ import annotations

import gzip

import pytest

from batching.api.squeeze import takes_gzip

BIG, SMALL = "/api/openapi.json", "/api/requests"


@pytest.mark.parametrize(
    ("accepted", "is_taken"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
        ("gzip;q=much", False),
    ],
)
def test_accept_encoding_is_read(accepted, is_taken):
    assert takes_gzip(accepted) == is_taken


def test_big_json_is_gzipped_when_asked_for(api):
    plain = api.get(BIG)
    small = api.get(BIG, **{"Accept-Encoding": "gzip"})

    assert gzip.decompress(small.content) == plain.content
    assert (small["Content-Encoding"], plain.has_header("Content-Encoding")) == ("gzip", False)
    assert small["Content-Length"] == str(len(small.content))
    assert small["Vary"] == plain["Vary"] == "Accept-Encoding"


def test_little_json_stays_as_it_is(api):
    assert not api.get(SMALL, **{"Accept-Encoding": "gzip"}).has_header("Content-Encoding")
