"""The overview's charts: accepted and delivered, requests by state, turnaround, errors by class.

Decides what each chart shows, its words, and which list each of its points opens. ``timelines`` has the figures,
`static/batcher/charts.js` draws them, and every chart is a table as well: for those who can't see it, and without
JavaScript. The span (``range=1h``, ``24h``, ``7d``) stands in the address.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from batching.admin import shown
from batching.lifecycle import RequestState
from batching.tallying import OTHER
from batching.timelines import SPANS, Timeline, counted_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse

PERMISSIONS: Final = ("batching.view_batch", "batching.view_request")
_REQUESTS: Final = "batching.request"
_FROM, _TO = "_from_", "_to_"
"""Stand in a point's address for its stretch of time; charts.js puts the times there, as the table does."""
_LEAST_S: Final = 5
"""The running stretch shows a rate after so many seconds, not before."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, area or row of bars."""

    name: str
    """Also its colour: ``--b-chart-<name>`` in charts.css, or by place for errors."""
    label: str
    values: Sequence[float | None]
    """One for each stretch; None: nothing to show."""
    url: str
    """The list that a point opens, with ``_from_`` and ``_to_`` for the stretch's times."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One card."""

    name: str
    title: str
    about: str
    """What a point means, and what it opens."""
    kind: str
    """``lines``, ``areas`` (stacked) or ``bars`` (stacked)."""
    unit: str
    """``rate`` (counts to be divided by the stretch's minutes), ``count`` or ``seconds``."""
    series: Sequence[Series]
    empty: str

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to draw."""
        return not any(value for series in self.series for value in series.values)


def _flow(line: Timeline) -> Chart:
    return Chart(
        name="flow",
        title="Accepted and delivered",
        about="Requests a minute. A point opens those that it counts.",
        kind="lines",
        unit="rate",
        empty="Nothing was accepted or delivered in this time.",
        series=[
            Series(name="accepted", label="Accepted", values=line.accepted(), url=_accepted()),
            Series(name="delivered", label="Delivered", values=line.delivered(), url=_delivered()),
        ],
    )


def _states(line: Timeline) -> Chart:
    words = {
        RequestState.PENDING: "Waiting",
        RequestState.PROCESSING: "At the provider",
        RequestState.PROCESSED: "Answered",
        RequestState.DELIVERING: "Being delivered",
        RequestState.DELIVERY_FAILED: "Given up",
    }
    levels = line.levels()
    return Chart(
        name="states",
        title="Requests by state",
        about="How many were there. An area opens those that are there now.",
        kind="areas",
        unit="count",
        empty="No request was open in this time.",
        series=[
            Series(name=str(state), label=label, values=levels[state],
                   url=shown.list_of(_REQUESTS, state__exact=str(state)))
            for state, label in words.items()
            if any(levels[state])
        ],
    )  # fmt: skip


def _turnaround(line: Timeline) -> Chart:
    spans = line.turnaround()
    words = {"p50": "Half within", "p90": "9 of 10 within", "p99": "99 of 100 within"}
    return Chart(
        name="turnaround",
        title="From intake to delivery",
        about="How long first deliveries took. A point opens what was delivered then.",
        kind="lines",
        unit="seconds",
        empty="Nothing was delivered in this time.",
        series=[
            Series(name=name, label=label, values=[getattr(one, name) for one in spans], url=_delivered())
            for name, label in words.items()
        ],
    )  # fmt: skip


def _errors(line: Timeline) -> Chart:
    found = line.errors()
    return Chart(
        name="errors",
        title="Errors by class",
        about="Bad ends. A bar opens the requests that ended so.",
        kind="bars",
        unit="count",
        empty="Nothing ended badly in this time.",
        series=[
            Series(name=f"error-{place}", label=_error_label(name), values=counts, url=_ended(name))
            for place, (name, counts) in enumerate(found.items())
        ],
    )


def _accepted() -> str:
    return shown.list_of(_REQUESTS, **{"from": _FROM, "to": _TO})


def _delivered() -> str:
    return shown.list_of(_REQUESTS, delivered=f"{_FROM}..{_TO}")


def _ended(name: str) -> str:
    """Return the list of those that ended in this class; ``other`` opens all bad ends of the time."""
    state, _, code = name.partition(":")
    filters = {"ended": f"{_FROM}..{_TO}"}
    if state != OTHER:
        filters["state__exact"] = state
    if code not in ("", OTHER):
        filters["error"] = code
    return shown.list_of(_REQUESTS, **filters)


def _error_label(name: str) -> str:
    state, _, code = name.partition(":")
    words = code if code not in ("", OTHER) else ("other" if OTHER in (state, code) else state)
    return words.replace("_", " ")


CHARTS: Final[Mapping[str, Callable[[Timeline], Chart]]] = {
    "flow": _flow,
    "states": _states,
    "turnaround": _turnaround,
    "errors": _errors,
}


def context_of(request: HttpRequest, now: datetime) -> dict[str, Any]:
    """Return what the charts' template takes: the cards, the spans to choose from, and the points as JSON."""
    span = SPANS.get(request.GET.get("range", ""), SPANS["1h"])
    line, until = Timeline(span, now), counted_until()
    charts = [build(line) for build in CHARTS.values()]
    return {
        "span": span,
        "spans": list(SPANS.values()),
        "charts": charts,
        "counted_until": until,
        "points": json.dumps(points(charts, line, until or now)),
        "charts_url": f"{reverse('charts')}?range={span.name}",
    }


def points(charts: Sequence[Chart], line: Timeline, until: datetime) -> dict[str, Any]:
    """Return what charts.js draws.

    ``starts``, ``ends``: ISO times; ``minutes``: how long each stretch has lasted, None when too short to tell a
    rate; ``charts``: by name ``kind``, ``unit`` and ``series`` (``name``, ``label``, ``values``, ``url``).
    """
    return {
        "range": line.span.name,
        "starts": [_iso(start) for start in line.starts],
        "ends": [_iso(end) for end in line.ends],
        "minutes": minutes(line, until),
        "charts": {
            chart.name: {
                "kind": chart.kind,
                "unit": chart.unit,
                "series": [vars(series) for series in chart.series],
            }
            for chart in charts
        },
    }


def minutes(line: Timeline, until: datetime) -> list[float | None]:
    """Return the minutes that each stretch has lasted as far as is counted."""
    lasted = [(min(end, until) - start).total_seconds() for start, end in zip(line.starts, line.ends, strict=True)]  # fmt: skip
    return [round(seconds / 60, 3) if seconds >= _LEAST_S else None for seconds in lasted]


def _allowed(request: HttpRequest) -> None:
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied


@require_safe
def charts_view(request: HttpRequest) -> HttpResponse:
    """Show the charts alone: to htmx only their figures, for it asks again and again."""
    _allowed(request)
    context = context_of(request, timezone.now())
    if getattr(request, "htmx", False):
        return TemplateResponse(request, "batcher/admin/_charts_figures.html", context)
    page = {**admin.site.each_context(request), **context, "title": "Charts"}
    return TemplateResponse(request, "batcher/admin/charts.html", page)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stretch of time as a row of a chart's table."""

    start: datetime
    cells: Sequence[tuple[str, str]]
    """Figure and address, one for each series."""


@require_safe
def table_view(request: HttpRequest, name: str) -> HttpResponse:
    """Show a chart's figures as a table, newest first; to htmx the table alone."""
    _allowed(request)
    if name not in CHARTS:
        raise Http404
    span = SPANS.get(request.GET.get("range", ""), SPANS["1h"])
    now = timezone.now()
    line = Timeline(span, now)
    chart = CHARTS[name](line)
    rows = _rows(chart, line, minutes(line, counted_until() or now))
    context = {"chart": chart, "rows": rows, "span": span, "as_of": now}
    if getattr(request, "htmx", False):
        return TemplateResponse(request, "batcher/admin/_chart_table.html", context)
    page = {**admin.site.each_context(request), **context, "title": f"{chart.title}, {span.label}"}
    return TemplateResponse(request, "batcher/admin/chart_table.html", page)


def _rows(chart: Chart, line: Timeline, lasted: Sequence[float | None]) -> list[Row]:
    """Return a row for each stretch in which there is a figure other than 0, newest first."""
    rows = []
    for place, start in enumerate(line.starts):
        values = [series.values[place] for series in chart.series]
        if any(values):
            end = line.ends[place]
            cells = [
                (_figure(chart.unit, value, lasted[place]), addressed(series.url, start, end))
                for series, value in zip(chart.series, values, strict=True)
            ]
            rows.append(Row(start=start, cells=cells))
    return rows[::-1]


def addressed(url: str, start: datetime, end: datetime) -> str:
    """Put a stretch's times into a series' address, as charts.js does."""
    return url.replace(_FROM, _iso(start)).replace(_TO, _iso(end))


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _figure(unit: str, value: float | None, lasted: float | None) -> str:
    if value is None:
        return shown.NOTHING
    if unit == "seconds":
        return shown.duration(timedelta(seconds=value)) if value >= 1 else f"{value:.1f} s"
    if unit == "rate" and lasted:
        return f"{value / lasted:,.1f} a minute ({value:,})" if lasted != 1 else f"{value:,}"
    return f"{value:,}"


__all__ = ["CHARTS", "PERMISSIONS", "Chart", "Series", "charts_view", "context_of", "table_view"]
