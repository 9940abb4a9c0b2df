"""The panel as an operator goes through it in a browser, with every process of Batcher behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visitor

SLOW_MS = 40_000
"""The longest that anything may take to come to pass by itself."""


@pytest.fixture(scope="module")
def operator(visitors) -> Visitor:
    return visitors("admin")


@pytest.fixture(autouse=True)
def no_complaint_of_the_browser(operator):
    operator.complaints.clear()
    yield
    assert operator.complaints == []


def press(place: Locator, name: str) -> None:
    place.get_by_role("button", name=name, exact=True).click()


def send_sample(visitor: Visitor, count: int) -> Locator:
    """Send requests to the sandbox's own receiver; return what shows how far they are."""
    visitor.go("/admin/sandbox/")
    form = visitor.page.locator("#sandbox_send")
    form.locator("[name=count]").fill(str(count))
    press(form, "Send")
    return visitor.page.locator("#sandbox_watch")


def test_a_sample_is_watched_until_it_is_delivered(operator):
    watch = send_sample(operator, 3)

    expect(watch).to_contain_text("That is all", timeout=SLOW_MS)
    expect(watch.locator(".b-step-done", has_text="3 of 3").last).to_be_visible()
    expect(operator.page.locator("#sandbox_receiver")).to_contain_text("taken")


def test_what_a_broken_receiver_refused_is_delivered_once_it_is_mended(operator):
    page = operator.page
    operator.go("/admin/sandbox/")
    press(page.locator("#sandbox_receiver"), "Break it")
    expect(page.locator("#sandbox_receiver")).to_contain_text("broken")
    watch = send_sample(operator, 2)
    expect(watch).to_contain_text("2 could not be delivered", timeout=SLOW_MS)

    press(page.locator("#sandbox_receiver"), "Mend it")
    expect(page.locator("#sandbox_receiver")).to_contain_text("well")
    page.locator("#sandbox_watch").get_by_role("link", name="Its requests").click()
    page.wait_for_url(re.compile("submission="))
    assert page.locator("#result_list tbody tr").count() == 2
