"""The keys of lists, pressed in a browser, and a list that renews itself under them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

ON = "document.activeElement.closest('tr')?.rowIndex ?? 0"
"""Which row has the focus, from 1; 0: none."""


@pytest.fixture(scope="module")
def viewer(visitors):
    return visitors("viewer")


@pytest.fixture
def listed(viewer) -> Page:
    viewer.go("/admin/batching/batch/")
    return viewer.page


def row_after(page: Page, *keys: str) -> int:
    for key in keys:
        page.keyboard.press(key)
    return page.evaluate(ON)


def test_j_and_k_go_from_row_to_row_and_stop_at_the_ends(listed):
    assert row_after(listed, "j") == 1
    assert row_after(listed, "j", "j") == 3
    assert row_after(listed, "k") == 2
    assert row_after(listed, "k", "k", "k") == 1


def test_enter_opens_the_row(listed):
    row_after(listed, "j")
    listed.keyboard.press("Enter")

    expect(listed).to_have_url(re.compile(r"/\d+/change/"))


def test_a_question_mark_tells_of_the_keys_and_escape_closes_it(listed):
    listed.keyboard.press("?")
    expect(listed.get_by_role("dialog", name="Keys")).to_be_visible()

    listed.keyboard.press("Escape")

    expect(listed.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_a_field_takes_the_keys_for_itself(listed):
    listed.keyboard.press("/")
    listed.keyboard.type("jk?")

    expect(listed.locator("#searchbar")).to_have_value("jk?")
    assert listed.evaluate(ON) == 0


def test_a_renewed_list_keeps_the_focus_and_its_order(listed):
    names = listed.locator("#result_list tbody th").all_inner_texts()
    row_after(listed, "j", "j")

    with listed.expect_response("**/batch/live/**", timeout=15_000):
        pass

    assert listed.evaluate(ON) == 2
    assert [n.split()[0] for n in listed.locator("#result_list tbody th").all_inner_texts()] == [
        n.split()[0] for n in names
    ]
