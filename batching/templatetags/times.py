"""How times look on our pages: ``{{ at|moment }}``, ``{{ at|clock }}``, ``{{ at|age }}``.

Decides their words and what stands on hover; ``static/batcher/times.js`` writes them anew in the browser's zone.
Python calls these through ``batching.admin.shown``. Never reads the database.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

register = template.Library()

NOTHING = "-"
_TOLD = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?|\d\d:\d\d:\d\d) UTC")
_HALF_A_DAY = timedelta(hours=12)
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(span: timedelta) -> str:
    """Return a span in its two biggest units: ``3 d 4 h``, ``12 min 5 s``; under a second is ``0 s``."""
    left = max(0, int(span.total_seconds()))
    parts: list[str] = []
    for unit, size in _UNITS:
        if parts or left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


@register.filter
def age(moment: datetime | None) -> SafeString | str:
    """Return how long ago ``moment`` was (or how far off it is), with the moment itself on hover."""
    if moment is None:
        return NOTHING
    span = timezone.now() - moment
    text = duration(span) if span.total_seconds() >= 0 else f"in {duration(-span)}"
    return _time(moment, text, form="age")


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """Return a moment: UTC as it is sent, in the browser's zone when ``times.js`` has seen it."""
    return NOTHING if at is None else _time(at, f"{_utc(at)} UTC", form="moment")


@register.filter
def clock(at: datetime) -> SafeString:
    """Return the time of day of ``at``, as `moment` does."""
    return _time(at, f"{at.astimezone(UTC):%H:%M:%S} UTC", form="clock")


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _time(at: datetime, text: str, *, form: str) -> SafeString:
    """Return ``text`` as the time ``at``; static/batcher/times.js finds it by ``data-time`` and writes it anew."""
    return format_html(
        '<time datetime="{}" data-time="{}" title="{} UTC" class="b-nowrap">{}</time>',
        at.isoformat(),
        form,
        _utc(at),
        text,
    )


@register.filter
def moments(sentence: object) -> SafeString:
    """Return a sentence whose moments (``2026-08-21 14:03:05 UTC``) stand in the browser's zone, too."""
    parts = _TOLD.split(str(sentence))
    told = (_told(part) if n % 2 else part for n, part in enumerate(parts))
    return format_html_join("", "{}", ((part,) for part in told))


def _told(text: str) -> SafeString | str:
    try:
        if len(text) == len("hh:mm:ss"):
            return clock(_nearest(time.fromisoformat(text), timezone.now()))
        return moment(datetime.fromisoformat(text).replace(tzinfo=UTC))
    except ValueError:  # no such day
        return f"{text} UTC"


def _nearest(at: time, now: datetime) -> datetime:
    """Return the moment nearest to now at which a clock shows this, UTC: a sentence names no day where it is near."""
    found = datetime.combine(now.astimezone(UTC), at, tzinfo=UTC)
    if found - now > _HALF_A_DAY:
        return found - timedelta(days=1)
    return found + timedelta(days=1) if now - found > _HALF_A_DAY else found


@register.simple_tag
def this_moment() -> SafeString:
    """Return the time of day at which the page is made: ``As of {% this_moment %}``."""
    return clock(timezone.now())


@register.filter
def moment_of(field: Any) -> SafeString | str:
    """Return the moment that a read-only field of a form holds; empty when it holds something else."""
    resolved = getattr(field, "resolved_field", None)
    value = resolved[2] if resolved else None
    return moment(value) if isinstance(value, datetime) else ""
