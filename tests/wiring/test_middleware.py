"""Sessions and CSRF are for pages; machines go past them."""

from __future__ import annotations

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from batcher.middleware import PageCsrf, PageMessages, PageSessions, is_machine_path

MACHINE = ["/api/requests", "/v1/files", "/hooks/openai", "/health", "/ready", "/metrics"]
PAGES = ["/", "/admin/", "/apis/", "/v10", "/static/x.css"]


@pytest.mark.parametrize("path", MACHINE)
def test_machine_paths_have_no_session_and_no_messages(path: str):
    request = RequestFactory().get(path)

    PageSessions(PageMessages(lambda _: HttpResponse()))(request)

    assert not hasattr(request, "session")
    assert not hasattr(request, "_messages")


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_a_session(path: str):
    request = RequestFactory().get(path)

    PageSessions(lambda _: HttpResponse())(request)

    assert hasattr(request, "session")
    assert not is_machine_path(path)


def refused(path: str) -> bool:
    request = RequestFactory(enforce_csrf_checks=True).post(path)
    csrf = PageCsrf(lambda _: HttpResponse())
    csrf(request)
    return csrf.process_view(request, lambda _: HttpResponse(), (), {}) is not None


def test_a_form_without_token_is_refused_on_pages_and_no_matter_on_machine_paths():
    assert refused("/admin/login/")
    assert not refused("/api/requests")
