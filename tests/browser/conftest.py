"""A Chromium, a whole Batcher to look at, and pages that fail a test when the browser complains of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.panel import PASSWORD, Panel
from tests.browser.screenshots import ARGS, CHROMIUM

ROWS = 2_000
"""Held rows beside what the tests make, so that every list has something to show."""


def pytest_collection_modifyitems(items):
    """Keep these in one process, which starts one Batcher and one browser."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        reason = f"there is no browser at {CHROMIUM}; CHROMIUM names another"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def panel(browser, tmp_path_factory) -> Iterator[Panel]:
    running = Panel(tmp_path_factory.mktemp("panel"), rows=ROWS)
    try:
        running.add_people()
        yield running
    finally:
        running.stop()


class Visitor:
    """Someone who is logged in, in a window of their own; what the browser complains of is kept."""

    def __init__(self, page: Page, panel: Panel, name: str) -> None:
        self.page, self.panel = page, panel
        self.complaints: list[str] = []
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.go("/admin/")
        page.fill("#id_username", name)
        page.fill("#id_password", PASSWORD)
        page.press("#id_password", "Enter")
        page.wait_for_url(f"{panel.url}/admin/")

    def go(self, path: str) -> int:
        """Open a page of the panel; return its status."""
        answer = self.page.goto(self.panel.url + path, wait_until="load")
        assert answer is not None
        return answer.status


@pytest.fixture(scope="module")
def visitors(browser, panel):
    """Log people in for a whole module: ``visitors("viewer")``."""
    contexts: list[BrowserContext] = []

    def log_in(name: str) -> Visitor:
        contexts.append(browser.new_context(viewport={"width": 1440, "height": 900}))
        contexts[-1].set_default_timeout(20_000)
        return Visitor(contexts[-1].new_page(), panel, name)

    yield log_in
    for context in contexts:
        context.close()
