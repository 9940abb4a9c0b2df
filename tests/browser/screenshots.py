"""Make the pictures of the docs: log in to a running server and photograph its pages.

Run as a script, never by pytest:

    python tests/browser/screenshots.py http://127.0.0.1:8000 admin PASSWORD [--into docs/images]

Each page is taken light, dark, and 390 px wide. Of batches and requests, the page of the row that stands
first in the list is taken. Needs Playwright and a Chromium (CHROMIUM names another than Debian's).
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TALLEST = 2_000
"""Pixels of one picture; a longer page is cut."""
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


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


SHOTS = (
    Shot(name="overview", path="/admin/"),
    Shot(name="batches", path="/admin/batching/batch/"),
    Shot(
        name="batch",
        path="/admin/batching/batch/?state__exact=delivered",
        opens_first_row=True,
    ),
    Shot(
        name="confirm",
        path="/admin/batching/batch/?state__exact=delivered",
        opens_first_row=True,
        follows="Redeliver",
    ),
    Shot(name="requests", path="/admin/batching/request/"),
    Shot(
        name="request",
        path="/admin/batching/request/?state__exact=delivered",
        opens_first_row=True,
    ),
    Shot(name="attempts", path="/admin/delivery/attempt/"),
    Shot(name="destinations", path="/admin/batching/destination/"),
    Shot(name="accounts", path="/admin/batching/account/"),
    Shot(name="keys", path="/admin/batching/apikey/"),
    Shot(name="clock", path="/admin/django_celery_beat/periodictask/"),
)


def main(arguments: list[str]) -> int:
    """Take every picture; return 1 when a page did not answer with 200."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("user")
    parser.add_argument("password")
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    given = parser.parse_args(arguments)
    given.into.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        broken = [page for look in LOOKS for page in _photograph(browser, look, given)]
        browser.close()
    for page in broken:
        sys.stderr.write(f"did not open: {page}\n")
    return 1 if broken else 0


def _photograph(browser: Browser, look: Look, given: argparse.Namespace) -> list[str]:
    """Take every page in one look; return those that failed."""
    page = browser.new_page(
        viewport={"width": look.width, "height": look.height}, color_scheme=look.scheme
    )
    base = given.url.rstrip("/")
    page.goto(f"{base}/admin/login/?next=/admin/")
    page.screenshot(path=given.into / f"login-{look.name}.png")
    page.fill("#id_username", given.user)
    page.fill("#id_password", given.password)
    page.press("#id_password", "Enter")
    page.wait_for_url(f"{base}/admin/")
    broken = [shot.name for shot in SHOTS if not _take(page, base, shot, look, given.into)]
    page.close()
    return broken


def _take(page: Page, base: str, shot: Shot, look: Look, into: Path) -> bool:
    """Take one page; return False when it did not open."""
    answer = page.goto(f"{base}{shot.path}")
    if shot.opens_first_row:
        first = page.locator("#result_list tbody th a").first
        if not first.count():
            return False
        answer = page.goto(f"{base}{first.get_attribute('href')}")
    if shot.follows:
        link = page.locator("a").filter(has_text=shot.follows).first  # in a menu when narrow
        answer = page.goto(f"{base}{link.get_attribute('href')}")
    page.wait_for_load_state("networkidle")
    # A window as tall as the page: bars that stick to its edges are then where they belong.
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": look.width, "height": min(max(look.height, tall), TALLEST)})
    page.screenshot(path=into / f"{shot.name}-{look.name}.png")
    page.set_viewport_size({"width": look.width, "height": look.height})
    return answer is not None and answer.status == 200


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
