"""What was spent: a table of days, models, projects or accounts, from the daily sums, and the same as CSV.

Days are UTC. Amounts are what answers cost at the provider's batch price; *saved* is what they would have cost
one by one, less that.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from batching.admin import shown
from batching.admin.charts import PERMISSIONS
from batching.costs import dollars
from batching.models import Lane, Project, Spend

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from django.http import HttpRequest

BY: Final = {"model": "Model", "project": "Project", "account": "Account"}
DAYS: Final = (7, 30, 90, 365)
_MOST_ROWS = 20_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_SUMS: Final = ("answers", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost_nano", "ordinary_nano")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """One day of one model, project or account; or a total."""

    day: date | None
    name: str
    sums: dict[str, int]

    @property
    def cost(self) -> str:
        """In US$, as people read it."""
        return shown.about_money(self.sums["cost_nano"])

    @property
    def saved_nano(self) -> int:
        """Nano-dollars below the ordinary price."""
        return self.sums["ordinary_nano"] - self.sums["cost_nano"]

    @property
    def saved(self) -> str:
        """In US$, as people read it."""
        return shown.about_money(self.saved_nano)


def lines(by: str, since: date) -> list[Line]:
    """Return what was spent since a day, newest first, and within a day the dearest first. Three queries."""
    rows = list(Spend.objects.filter(day__gte=since).order_by("-day")[:_MOST_ROWS])
    names = _names(by, rows)
    found: defaultdict[tuple[date, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0))  # fmt: skip
    for row in rows:
        sums = found[row.day, names[row.project_id if by == "project" else row.lane_id]]
        for name in _SUMS:
            sums[name] += getattr(row, name)
    made = [Line(day=day, name=name, sums=sums) for (day, name), sums in found.items()]
    return sorted(made, key=lambda line: (line.day or since, line.sums["cost_nano"]), reverse=True)


def _names(by: str, rows: Iterable[Spend]) -> defaultdict[int, str]:
    """Return what each number is called; what was deleted is called so."""
    names: defaultdict[int, str] = defaultdict(lambda: "(deleted)")
    if by == "project":
        chosen = Project.objects.filter(pk__in={row.project_id for row in rows})
        return _filled(names, chosen.values_list("pk", "name"))
    field = "model" if by == "model" else "account__name"
    lanes = Lane.objects.filter(pk__in={row.lane_id for row in rows})
    return _filled(names, lanes.values_list("pk", field))


def _filled(names: defaultdict[int, str], pairs: Iterable[tuple[int, str]]) -> defaultdict[int, str]:  # fmt: skip
    names.update(dict(pairs))
    return names


def total_of(found: Iterable[Line], name: str = "All") -> Line:
    """Add lines up."""
    sums = dict.fromkeys(_SUMS, 0)
    for line in found:
        for key in _SUMS:
            sums[key] += line.sums[key]
    return Line(day=None, name=name, sums=sums)


@require_safe
def costs_view(request: HttpRequest) -> HttpResponse:
    """Show what was spent, or send it as CSV (``format=csv``)."""
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied
    by = request.GET.get("by", "model")
    by = by if by in BY else "model"
    days = next((count for count in DAYS if str(count) == request.GET.get("days")), 30)
    today = timezone.now().astimezone(UTC).date()
    found = lines(by, today - timedelta(days=days - 1))
    if request.GET.get("format") == "csv":
        return _as_csv(found, by, today)
    context = {
        **admin.site.each_context(request),
        "title": "Costs",
        "by": by,
        "by_word": BY[by],
        "all_by": BY,
        "days": days,
        "all_days": DAYS,
        "lines": found,
        "totals": _totals(found),
        "total": total_of(found),
    }
    return TemplateResponse(request, "batcher/admin/costs.html", context)


def _totals(found: Iterable[Line]) -> list[Line]:
    """Return each name's total over all days, the dearest first."""
    of_name: defaultdict[str, list[Line]] = defaultdict(list)
    for line in found:
        of_name[line.name].append(line)
    totals = [total_of(some, name) for name, some in of_name.items()]
    return sorted(totals, key=lambda line: line.sums["cost_nano"], reverse=True)


def _as_csv(found: Iterable[Line], by: str, today: date) -> HttpResponse:
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="costs-by-{by}-{today}.csv"'
    writer = csv.writer(answer)
    writer.writerow(["day", by, "answers", "answers_without_price", "input_tokens", "cached_tokens",
                     "output_tokens", "cost_usd", "saved_usd"])  # fmt: skip
    for line in found:
        writer.writerow(_cells(line))
    return answer


def _cells(line: Line) -> list[Any]:
    figures = [line.sums[name] for name in _SUMS[:5]]
    name = (
        f"'{line.name}" if line.name.startswith(_FORMULA) else line.name
    )  # no formula for a sheet
    return [line.day, name, *figures, dollars(line.sums["cost_nano"]), dollars(max(0, line.saved_nano))]  # fmt: skip
