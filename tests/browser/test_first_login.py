"""The first login on a Batcher that has nothing yet, and the way from there to a first delivered result."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.browser.fitness import assert_fit
from tests.browser.panel import Panel
from tests.browser.test_walk import SLOW_MS, press


@pytest.fixture
def newcomer(browser, tmp_path) -> Iterator[Visitor]:
    """The admin of a Batcher that was started for the first time."""
    fresh = Panel(tmp_path)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(20_000)
    yield Visitor(page, fresh, "admin")
    page.close()
    fresh.stop()


def test_an_empty_overview_leads_to_a_first_sample_and_then_shows_it(newcomer):
    page = newcomer.page
    expect(page.get_by_role("heading", name="Send the first request")).to_be_visible()
    expect(page.locator("#standings")).to_contain_text("No request has come yet.")
    assert_fit(page)

    page.get_by_role("link", name="Send a sample from its page").click()
    press(page.locator("#sandbox_send"), "Send")
    expect(page.locator("#sandbox_watch")).to_contain_text("That is all", timeout=SLOW_MS)

    newcomer.go("/admin/")
    expect(page.get_by_role("heading", name="Send the first request")).to_have_count(0)
    expect(page.locator("#standings")).to_contain_text("delivered")
    assert newcomer.complaints == []
