"""The panel as an operator goes through it in a browser, with every process of Batcher behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from benchmarks.console_sql import LINE
from tests.browser.conftest import Visitor

SLOW_MS = 40_000
"""The longest that anything may take to come to pass by itself."""
_BATCHES = "rows => rows.map(row => row.dataset.batch)"
_STATUS_OF = "path => fetch(path).then(answer => answer.status)"
REFUSED = "Failed to load resource: the server responded with a status of 403 (Forbidden)"


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


def confirm(visitor: Visitor, deed: str, button: str, *, matching: int) -> None:
    """Read what is meant, say why, and see it done."""
    page = visitor.page
    expect(page.locator("h2", has_text=re.compile(rf"{deed} {matching}\b"))).to_be_visible()
    page.get_by_label("Reason").fill("tried out in a browser")
    press(page.locator("form"), button)
    expect(page.locator("#_walk_progress:not([hx-get])")).to_be_visible(timeout=SLOW_MS)


def listed(visitor: Visitor, query: str) -> int:
    visitor.go(f"/admin/batching/request/?{query}")
    return visitor.page.locator("#result_list tbody tr").count()


def set_receiver(visitor: Visitor, button: str, *, becomes: str) -> None:
    """Break or mend the sandbox's own receiver, on the page that is open."""
    receiver = visitor.page.locator("#sandbox_receiver")
    press(receiver, button)
    expect(receiver).to_contain_text(becomes)


def test_a_group_of_dead_letters_is_retried_once_its_receiver_is_mended(operator):
    page = operator.page
    operator.go("/admin/sandbox/")
    set_receiver(operator, "Break it", becomes="broken")
    watch = send_sample(operator, 2)
    expect(watch).to_contain_text("2 could not be delivered", timeout=SLOW_MS)
    sample = page.url
    watch.get_by_role("link", name="dead letters").click()
    page.locator("#dead_letters a", has_text="sandbox-receiver").click()
    expect(page.get_by_label("What happened")).to_contain_text("2 results could not be delivered")
    group = page.url
    page.goto(sample)
    set_receiver(operator, "Mend it", becomes="well")

    page.goto(group)
    page.get_by_role("link", name="Retry all 2").click()
    press(page.locator("form"), "Show what that means")
    confirm(operator, "Redeliver", "Redeliver", matching=2)

    page.goto(sample)
    expect(page.locator("#sandbox_watch")).to_contain_text("That is all", timeout=SLOW_MS)
    assert listed(operator, f"{sample.partition('?')[2]}&state__exact=delivered") == 2
    page.goto(group)
    expect(page.locator("body")).to_contain_text("This group is empty by now")


def test_what_a_filter_matches_is_cancelled_after_a_look_at_it(operator):
    for number in range(3):
        line = {"custom_id": f"not-wanted-{number}", "url": "/v1/responses", "method": "POST"}
        body = {"model": "gpt-never", "input": "Hi"}
        operator.panel.call(
            "POST",
            "/api/requests",
            {**line, "body": body, "max_wait_s": 3600, "delivery_config": {"type": "none"}},
        )
    assert listed(operator, "q=not-wanted-*&state__exact=pending") == 3

    operator.page.locator("summary", has_text="With everything that matches").click()
    operator.page.locator(".b-menu").get_by_role("link", name="Cancel").click()
    confirm(operator, "Cancel", "Cancel all", matching=3)

    assert listed(operator, "q=not-wanted-*&state__exact=cancelled") == 3


def line_of(visitor: Visitor) -> list[str]:
    return visitor.page.eval_on_selector_all("#lane_line tr[data-batch]", _BATCHES)


def expect_line(visitor: Visitor, batches: list[str]) -> None:
    for place, batch in enumerate(batches):
        row = visitor.page.locator("#lane_line tr[data-batch]").nth(place)
        expect(row).to_have_attribute("data-batch", batch)


def test_a_lanes_line_is_put_in_order_by_keys_and_by_dragging(operator):
    operator.go(f"/admin/batching/lane/{LINE}/change/")
    page = operator.page
    first, second, *others = line_of(operator)

    page.locator(f"tr[data-batch='{first}'] .b-handle").focus()
    for key in ("Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(page.locator("#lane_line")).to_contain_text("moved")
    expect_line(operator, [second, first, *others])

    handle = page.locator(f"tr[data-batch='{first}'] .b-handle")
    handle.hover()
    page.mouse.down()
    page.locator(f"tr[data-batch='{second}']").hover(position={"x": 30, "y": 2})
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.mouse.up()
    expect_line(operator, [first, second, *others])
    page.reload()
    assert line_of(operator) == [first, second, *others]


def test_a_viewer_sees_no_action_and_no_payload(visitors):
    viewer = visitors("viewer")
    assert listed(viewer, "state__exact=delivered") > 1
    page = viewer.page
    assert page.locator("[name=action], [name=_selected_action]").count() == 0
    assert page.get_by_text("With everything that").count() == 0

    row = str(page.locator("#result_list tbody th a").first.get_attribute("href"))
    viewer.go(row)

    seen = page.locator("body").inner_text()
    assert not re.search(r"\b(Cancel|Retry|Redeliver|Redirect)\b", seen)
    assert page.locator("a[href*='/payload']").count() == 0
    assert page.evaluate(_STATUS_OF, row.replace("change/", "payload/")) == 403
    assert viewer.complaints == [REFUSED]
