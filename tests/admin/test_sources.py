"""What our pages are made of: nothing inline, nothing marked safe by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = [
    *(ROOT / "batching" / "admin").glob("*.py"),
    *(ROOT / "batching" / "templatetags").glob("*.py"),
    ROOT / "delivery" / "admin.py",
    *(ROOT / "templates").rglob("*.html"),
]


def test_every_source_is_looked_at():
    assert len(OURS) > 25


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_inline_and_nothing_is_marked_safe(path):
    text = path.read_text(encoding="utf-8")

    found = re.findall(
        r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=\"|mark_safe|\|safe\b|\.raw\(|\.extra\(",
        text,
    )

    assert found == []
