"""What a page may load: our own files alone, told by a header on each page and kept by what stands in it."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.urls import NoReverseMatch, reverse
from unfold.sites import UnfoldAdminSite

from batcher.middleware import PAGE_POLICY
from tests.batching.rows import a_batch, a_destination, a_request

INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\son[a-z]+=\"|javascript:|src=\"(?:https?:)?//")


def lists() -> list[str]:
    return [
        f"{model._meta.app_label}_{model._meta.model_name}_changelist"
        for model in admin.site._registry
    ]


def assert_shut(answer):
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert INLINE.findall(answer.content.decode()) == []


@pytest.mark.parametrize("name", ["index", "batching_settings", *lists()])
def test_every_page_carries_the_policy_and_nothing_inline(as_, name):
    a_request(batch=a_batch(), destination=a_destination())

    assert_shut(as_("root").get(reverse(f"admin:{name}")))


@pytest.mark.parametrize("name", lists())
def test_every_form_carries_the_policy_and_nothing_inline(as_, name):
    try:
        url = reverse(f"admin:{name.removesuffix('_changelist')}_add")
    except NoReverseMatch:
        pytest.skip("nothing is added here")
    answer = as_("root").get(url)

    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert INLINE.findall(answer.content.decode()) == []


def test_the_pages_of_rows_carry_the_policy_and_nothing_inline(as_):
    client = as_("root")
    request = a_request(batch=a_batch(), destination=a_destination())

    for row in (request, request.batch, request.destination, request.lane):
        name = f"admin:batching_{row._meta.model_name}_change"
        assert_shut(client.get(reverse(name, args=[row.pk])))
    assert_shut(client.get(reverse("admin:batching_request_payload", args=[request.pk])))


def test_the_login_page_carries_the_policy(client, db):
    assert_shut(client.get(reverse("admin:login")))


def test_the_docs_of_the_api_have_a_tighter_policy_of_their_own(client):
    policy = client.get("/api/docs").headers["Content-Security-Policy"]

    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_the_policy_names_no_other_host_and_two_words_only():
    assert "http" not in PAGE_POLICY
    assert "*" not in PAGE_POLICY
    assert PAGE_POLICY.count("unsafe-") == 2
    assert "default-src 'none'" in PAGE_POLICY


def test_the_colours_that_the_theme_would_write_into_each_page_are_in_a_file(client, db):
    site = UnfoldAdminSite()

    assert site._get_colors("COLORS", None) == {}
    assert "batcher/colors.css" in client.get(reverse("admin:login")).content.decode()
