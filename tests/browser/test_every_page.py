"""Each page of the panel, as people with other eyes, hands and screens meet it."""

from __future__ import annotations

import pytest

from batcher.theme import NAVIGATION
from tests.browser.fitness import NARROW, WIDE, assert_fit

PAGES = [str(page["link"]) for group in NAVIGATION for page in group["items"]]
NAMES = [page["title"] for group in NAVIGATION for page in group["items"]]
FORMS = ["apikey", "account", "destination", "project"]


@pytest.fixture(scope="module")
def reader(visitors):
    return visitors("admin")


@pytest.fixture(autouse=True)
def no_complaint_of_the_browser(reader):
    reader.complaints.clear()
    yield
    assert reader.complaints == []


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_a_page_and_its_first_row_are_fit_for_everyone(reader, path):
    assert reader.go(path) == 200

    assert_fit(reader.page)

    first = reader.page.locator("#result_list tbody th a").first
    if first.count():
        assert reader.go(str(first.get_attribute("href"))) == 200
        assert_fit(reader.page)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_fit_for_everyone(reader, name):
    assert reader.go(f"/admin/batching/{name}/add/") == 200

    assert_fit(reader.page)


def test_the_login_page_is_fit_for_everyone(browser, panel):
    page = browser.new_page()
    page.goto(f"{panel.url}/admin/login/")

    assert_fit(page)
    page.close()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_list_is_walked_through_by_keyboard_alone(reader, size):
    reader.page.set_viewport_size(size)
    reader.go("/admin/batching/batch/")
    row = str(reader.page.locator("#result_list tbody th a").first.get_attribute("href"))

    for _ in range(120):
        reader.page.keyboard.press("Tab")
        if reader.page.evaluate("document.activeElement.getAttribute('href')") == row:
            break
    reader.page.keyboard.press("Enter")

    reader.page.wait_for_url(f"**{row}")
    assert reader.page.url.endswith(row)
