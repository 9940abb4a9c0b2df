"""How values look on our pages: times, ages, sizes, links, long text. Everything is escaped.

Called by every module of this package. Never reads the database.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from batching.costs import NANO, dollars
from batching.templatetags.times import NOTHING, age, clock, duration, moment

if TYPE_CHECKING:
    from django.db.models import Model
    from django.utils.safestring import SafeString

CUT_AT = 2_000

__all__ = [
    "NOTHING", "age", "between", "clock", "cut", "cut_short", "duration", "full_to", "link", "list_of", "long_text", "moment",
    "money", "number", "page_at", "page_of", "pretty", "progress", "sendable", "size", "two_lines",
]  # fmt: skip


def size(size_bytes: int | None) -> str:
    """Return a size in the unit that leaves at most three digits before the point."""
    if size_bytes is None:
        return NOTHING
    if size_bytes < 1_000:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        amount /= 1_000
        if amount < 1_000 or unit == "GB":
            break
    return f"{amount:.1f} {unit}"


def number(value: int | None) -> str:
    """Return a whole number with commas, or a dash."""
    return NOTHING if value is None else f"{value:,}"


def money(nano: int | None) -> str:
    """Return an amount of nano-dollars in US$, or a dash."""
    amount = dollars(nano)
    return NOTHING if amount is None else f"$ {amount}"


def about_money(nano: int) -> str:
    """Return an amount of nano-dollars as a sum of many is read: to the cent, small ones to two digits."""
    amount = Decimal(nano) / NANO
    if not amount or abs(amount) >= 1:
        return f"$ {amount:,.2f}"
    return f"$ {amount:.{min(9, 1 - amount.adjusted())}f}"


def cut(text: str, most: int = CUT_AT) -> str:
    """Return ``text``, cut with a note of how much is left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"


def cut_short(text: str, most: int) -> str:
    """Return a short text for a list's column, cut with an ellipsis."""
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def long_text(text: str) -> SafeString | str:
    """Return text from outside as it came, cut, in a fixed-width box."""
    return format_html('<pre class="b-pre">{}</pre>', cut(text)) if text else NOTHING


def two_lines(first: str, second: str) -> SafeString:
    """Return two short texts, the second one smaller and below the first."""
    return format_html(
        '<span class="b-lines"><span>{}</span><span class="b-muted">{}</span></span>', first, second
    )


def pretty(value: Any) -> SafeString | str:
    """Return a JSON value indented, in a fixed-width box that scrolls."""
    if value is None:
        return NOTHING
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return format_html('<pre class="b-pre">{}</pre>', sendable(cut(text, 20_000)))


def sendable(text: str) -> str:
    r"""Return ``text`` with lone surrogates written as ``\udc00``, so that UTF-8 can carry it."""
    return text.encode("utf-8", "backslashreplace").decode()


def page_of(row: Model) -> str:
    """Return the URL of a row's own admin page."""
    return page_at(row._meta.label_lower, row.pk)


def page_at(label: str, pk: Any) -> str:
    """Return the URL of the admin page of row ``pk`` of the model ``app.model``."""
    return reverse(f"admin:{label.replace('.', '_')}_change", args=[pk])


def list_of(label: str, **filters: Any) -> str:
    """Return the URL of a model's list, filtered."""
    url = reverse(f"admin:{label.replace('.', '_')}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def link(url: str, text: object) -> SafeString:
    """Return a link in the theme's colour."""
    return format_html('<a class="b-link" href="{}">{}</a>', url, text)


def full_to(used: int, limit: int, said_by: str) -> SafeString:
    """Return how much of a limit is used, as words, a bar for the eye, and who says the limit."""
    return format_html(
        '<span class="b-progress"><span class="b-nowrap">{} of {}</span>'
        '<progress class="b-bar" max="{}" value="{}" aria-hidden="true"></progress>'
        '<span class="b-muted">{}</span></span>',
        number(used),
        number(limit),
        max(limit, 1),
        min(used, max(limit, 1)),
        said_by,
    )


def between(source: SafeString | str, target: SafeString | str) -> SafeString:
    """Return two states with an arrow between them."""
    return format_html(
        '<span class="b-nowrap">{} <span aria-hidden="true">→</span>'
        '<span class="b-unseen">to</span> {}</span>',
        source,
        target,
    )


def progress(ok: int, failed: int, *, total: int) -> SafeString | str:
    """Return ok, failed and left as figures, with a bar that says the same to the eye."""
    if not total:
        return NOTHING
    return format_html(
        '<span class="b-progress"><span class="b-nowrap">{} · {} · {}</span>'
        '<progress class="b-bar" max="{}" value="{}" aria-hidden="true"></progress></span>',
        number(ok),
        number(failed),
        number(max(0, total - ok - failed)),
        total,
        ok,
    )


def shares(ok: int, failed: int, *, total: int) -> SafeString | str:
    """Return ok, failed and left as figures with marks, over a bar in which each has its length and colour."""
    if not total:
        return NOTHING
    left = max(0, total - ok - failed)
    words = f"{number(ok)} ok, {number(failed)} failed, {number(left)} left"
    lengths = [round(100 * part / total, 2) for part in (ok, failed)]
    return format_html(
        '<span class="b-shares-of" title="{}"><span class="b-nowrap"><span class="b-ok">✓ {}</span> '
        '<span class="b-failed{}">✗ {}</span> <span class="b-muted">… {}</span></span>'
        '<svg class="b-split" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="b-split-ok" width="{}" height="4"></rect>'
        '<rect class="b-split-failed" x="{}" width="{}" height="4"></rect></svg></span>',
        words,
        number(ok),
        "" if failed else " b-none",
        number(failed),
        number(left),
        lengths[0],
        lengths[0],
        lengths[1],
    )


def about(value: int | None) -> SafeString | str:
    """Return a number in three digits or so, ``1.2 M``, with all of it on hover; small ones as they are."""
    if value is None or value < 10_000:
        return number(value)
    size, unit = (1e9, "G") if value >= 1e9 else (1e6, "M") if value >= 1e6 else (1e3, "k")
    amount = value / size
    text = (
        f"{amount:.0f}" if amount >= 100 else f"{amount:.1f}" if amount >= 10 else f"{amount:.2f}"
    )
    return format_html('<span title="{}">{} {}</span>', number(value), text, unit)


def trimmed(text: str) -> SafeString:
    """Return a text that a list's column cuts where its room ends, with all of it on hover."""
    return format_html('<span class="b-trim" title="{}">{}</span>', text, text)
