"""Make the pictures of the docs, in one command: a fresh Batcher with telling rows, photographed and ended.

    make screenshots                              # into docs/images
    make screenshots ARGS="--only batch --into /tmp/look --all"

Each screen is taken light; those that the docs show so, dark and 390 px wide too (``--all``: every one). Where a list
is opened, the page of its first row is taken. Run as a script, never by pytest. Needs Playwright and a Chromium
(CHROMIUM names another than Debian's), which also writes the pictures as WebP: a tenth of a PNG.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from benchmarks.console_sql import LINE
from tests.browser.panel import PASSWORD, Panel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TALLEST = 1_800
"""Pixels of one picture; a longer page is cut."""
ROWS = 12_000
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_AS_WEBP = """async png => {
    const image = new Image();
    image.src = 'data:image/png;base64,' + png;
    await image.decode();
    const canvas = document.createElement('canvas');
    const scale = Math.min(1, 1120 / image.width);
    [canvas.width, canvas.height] = [image.width * scale, image.height * scale];
    const brush = canvas.getContext('2d');
    brush.imageSmoothingQuality = 'high';
    brush.drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL('image/webp', 0.72).split(',')[1];
}"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One way to look at every page."""

    name: str
    width: int
    height: int
    scheme: str


LOOKS = (
    Look(name="light", width=1440, height=900, scheme="light"),
    Look(name="dark", width=1440, height=900, scheme="dark"),
    Look(name="narrow", width=390, height=844, scheme="light"),
)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One page to take."""

    name: str
    path: str
    opens_first_row: bool = False
    """Take the page of the row that stands first in this list."""
    follows: str = ""
    """Then go where the link with these words leads."""
    looks: tuple[str, ...] = ("light",)
    """How the docs show it."""


ALL_LOOKS = ("light", "dark", "narrow")
_BATCH = "/admin/batching/batch/"
_REQUEST = "/admin/batching/request/"
SHOTS = (
    Shot(name="overview", path="/admin/?range=24h", looks=ALL_LOOKS),
    Shot(name="batches", path=_BATCH, looks=ALL_LOOKS),
    Shot(name="batch", path=f"{_BATCH}?state__exact=partially_delivered", opens_first_row=True, looks=ALL_LOOKS),
    Shot(name="batch-waiting", path=f"{_BATCH}?state__exact=waiting_for_capacity", opens_first_row=True),
    Shot(name="confirm", path=f"{_BATCH}?state__exact=delivered", opens_first_row=True, follows="Redeliver"),
    Shot(name="requests", path=_REQUEST, looks=("light", "narrow")),
    Shot(name="request", path=f"{_REQUEST}?state__exact=delivery_failed", opens_first_row=True, looks=ALL_LOOKS),
    Shot(name="submissions", path="/admin/batching/submission/"),
    Shot(name="submission", path="/admin/batching/submission/", opens_first_row=True),
    Shot(name="files", path="/admin/batching/clientfile/"),
    Shot(name="lanes", path="/admin/batching/lane/", looks=("light", "dark")),
    Shot(name="lane", path=f"/admin/batching/lane/{LINE}/change/", looks=ALL_LOOKS),
    Shot(name="destinations", path="/admin/batching/destination/"),
    Shot(name="destination", path="/admin/batching/destination/?standing=circuit_open", opens_first_row=True, looks=("light", "dark")),
    Shot(name="dead-letters", path="/admin/dead-letters/", looks=ALL_LOOKS),
    Shot(name="costs", path="/admin/costs/"),
    Shot(name="workers", path="/admin/workers/"),
    Shot(name="attempts", path="/admin/delivery/attempt/"),
    Shot(name="replays", path="/admin/delivery/replay/"),
    Shot(name="events", path="/admin/delivery/eventdelivery/"),
    Shot(name="projects", path="/admin/batching/project/"),
    Shot(name="keys", path="/admin/batching/apikey/"),
    Shot(name="accounts", path="/admin/batching/account/"),
    Shot(name="account", path="/admin/batching/account/", opens_first_row=True),
    Shot(name="audit", path="/admin/batching/auditentry/"),
    Shot(name="history", path="/admin/django_fsm_log/statelog/"),
    Shot(name="clock", path="/admin/django_celery_beat/periodictask/"),
    Shot(name="settings", path="/admin/batching/override/"),
    Shot(name="refused", path="/admin/delivery/rejection/"),
    Shot(name="sandbox", path="/admin/sandbox/", looks=("light", "dark")),
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Take every picture; return 1 when a page did not answer with 200, by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="*", default=[], help="names of screens")
    parser.add_argument("--png", action="store_true", help="for viewers that know no WebP")
    parser.add_argument("--all", action="store_true", help="each screen in each look")
    given = parser.parse_args(arguments)
    given.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        panel = Panel(Path(folder), rows=ROWS)
        try:
            _send_some(panel)
            broken = _photograph(panel, given)
        finally:
            panel.stop()
    for page in broken:
        sys.stderr.write(f"did not open: {page}\n")
    return 1 if broken else 0


def _send_some(panel: Panel) -> None:
    """Let something happen now, beside the rows that were made."""
    for number in range(12):
        panel.call("POST", "/api/requests", {
            "custom_id": f"hello-{number}", "url": "/v1/responses", "method": "POST", "max_wait_s": 0,
            "account": "sandbox", "body": {"model": "gpt-5-mini", "input": f"Say hello in language {number}."},
            "delivery_config": {"type": "none"},
        })  # fmt: skip


def _photograph(panel: Panel, given: argparse.Namespace) -> list[str]:
    """Take every page in every look that it is shown in; return those that failed."""
    broken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        for look in LOOKS:
            page = _logged_in(browser, panel, look)
            _wait_until_counted(page)
            for shot in SHOTS:
                is_wanted = not given.only or shot.name in given.only
                if is_wanted and (given.all or look.name in shot.looks):
                    broken += [] if _take(page, panel, shot, look, given) else [shot.name]
            page.context.close()
        browser.close()
    return broken


def _logged_in(browser: Browser, panel: Panel, look: Look) -> Page:
    context = browser.new_context(
        viewport={"width": look.width, "height": look.height}, color_scheme=look.scheme
    )
    page = context.new_page()
    page.goto(f"{panel.url}/admin/login/?next=/admin/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", PASSWORD)
    page.press("#id_password", "Enter")
    page.wait_for_url(f"{panel.url}/admin/")
    return page


def _wait_until_counted(page: Page) -> None:
    """Wait until the charts know of the rows that were made."""
    for _ in range(60):
        page.reload()
        if page.get_by_text("Counted up to").count():
            return
        page.wait_for_timeout(1_000)


def _take(page: Page, panel: Panel, shot: Shot, look: Look, given: argparse.Namespace) -> bool:
    """Take one page; return False when it did not open."""
    answer = page.goto(panel.url + shot.path)
    if shot.opens_first_row:
        first = page.locator("#result_list tbody th a").first
        if not first.count():
            return False
        answer = page.goto(f"{panel.url}{first.get_attribute('href')}")
    if shot.follows:
        link = page.locator("a").filter(has_text=shot.follows).first  # in a menu when narrow
        answer = page.goto(f"{panel.url}{link.get_attribute('href')}")
    page.wait_for_load_state("networkidle")
    # A window as tall as the page: bars that stick to its edges are then where they belong.
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": look.width, "height": min(max(look.height, tall), TALLEST)})
    page.wait_for_timeout(400)  # charts are drawn
    path = given.into / f"{shot.name}-{look.name}"
    if given.png:
        page.screenshot(path=path.with_suffix(".png"))
    else:
        _save(page, path.with_suffix(".webp"))
    page.set_viewport_size({"width": look.width, "height": look.height})
    # Who is led elsewhere sees another page than the one that is meant.
    return answer is not None and answer.status == 200 and not answer.request.redirected_from


def _save(page: Page, path: Path) -> None:
    png = base64.b64encode(page.screenshot()).decode()
    blank = page.context.new_page()
    path.write_bytes(base64.b64decode(blank.evaluate(_AS_WEBP, png)))
    blank.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
