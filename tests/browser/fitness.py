"""What a page must be for everyone: readable, labelled, reachable by keyboard, and no wider than a phone.

``assert_fit`` looks at the page that is open, light and wide, then dark and 390 px wide, with axe-core's rules of
WCAG 2.1 A and AA. Findings of less than serious impact are left to the eye.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import axe_playwright_python

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
_WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_STICKING_OUT = """() => [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && getComputedStyle(e).position !== 'fixed')
    .slice(0, 5).map(e => e.tagName + '.' + e.className)"""


@cache
def _axe() -> str:
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def assert_fit(page: Page) -> None:
    """Fail with what is wrong with the page that is open."""
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    faults = [f"light: {fault}" for fault in findings(page)]
    page.set_viewport_size(NARROW)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    faults += [f"dark, narrow: {fault}" for fault in findings(page)]
    if page.evaluate(_WIDER) > 0:
        faults.append(f"wider than 390 px: {page.evaluate(_STICKING_OUT)}")
    assert not faults, "\n".join([page.url, *faults])


def findings(page: Page) -> list[str]:
    """Return axe's serious and critical findings, one line each."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(_axe())
    result: dict[str, Any] = page.evaluate("rules => axe.run(document, rules)", _RULES)
    return [
        f"{rule['id']} ({rule['help']}): {node['target']} {node['html'][:160]}"
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]
