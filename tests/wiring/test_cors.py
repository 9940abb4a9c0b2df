"""Pages of other origins get in only when they are named."""

from __future__ import annotations

import pytest
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory

from batcher import env

OURS, THEIRS = "https://app.example.com", "https://evil.example"


def test_it_is_off_by_default():
    assert not any("cors" in name for name in (*settings.MIDDLEWARE, *settings.INSTALLED_APPS))


@pytest.mark.parametrize(
    ("path", "origin", "is_let_in"),
    [
        ("/api/requests", OURS, True),
        ("/v1/files", OURS, True),
        ("/api/requests", THEIRS, False),
        ("/admin/", OURS, False),
    ],
)
def test_a_named_origin_may_call_the_machines_paths(settings, path, origin, is_let_in):
    settings.CORS_ALLOWED_ORIGINS = [OURS]
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    middleware = CorsMiddleware(lambda _: HttpResponse())

    answer = middleware(RequestFactory().options(path, headers=asked))

    assert (answer.get("Access-Control-Allow-Origin") == origin) == is_let_in
    assert not answer.has_header("Access-Control-Allow-Credentials")
    assert ("idempotency-key" in answer.get("Access-Control-Allow-Headers", "")) == is_let_in


@pytest.mark.parametrize("value", ["*", "app.example.com", "https://a/b", "https://*.a", "ftp://a"])
def test_what_is_no_origin_stops_the_start(value):
    with pytest.raises(ValueError, match="must"):
        env.origins(value)
