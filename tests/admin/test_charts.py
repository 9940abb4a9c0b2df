"""The overview's charts, their tables, the lists that their points open, and what was spent."""

from __future__ import annotations

import html
import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from batching import endings, intake, tallying
from batching.admin import request_times
from batching.models import Lane, Request, Spend
from batching.tally_sources import MOVES
from delivery.models import Attempt
from delivery.tallying import ATTEMPTS
from tests.admin.conftest import ROLES
from tests.batching.rows import a_destination, a_lane, a_line, a_project, a_request

LOOK = {"viewer", "operator", "admin", "root"}


def minutes_ago(count: float):
    return timezone.now() - timedelta(minutes=count)


def delivered(at, count: int = 1) -> None:
    place = a_destination()
    for _ in range(count):
        request = a_request(state="delivered", created_at=at - timedelta(minutes=1))
        Attempt.objects.create(
            request=request, destination=place, number=1, outcome="delivered", ended_at=at
        )


def failed(at, code: str, count: int = 1) -> None:
    rows = [a_request(state="processing") for _ in range(count)]
    some = Request.objects.filter(pk__in=[row.pk for row in rows])
    endings.end(some, "fail", code=code, message="no", now=at)


def fold() -> None:
    for source in (MOVES, ATTEMPTS):
        tallying.fold(source, timezone.now())


def drawn(client, span: str = "1h") -> dict:
    page = client.get(reverse("charts"), {"range": span}, headers={"HX-Request": "true"})
    return json.loads(page.context["points"])


def listed(client, url: str) -> int:
    page = client.get(html.unescape(url))
    assert page.status_code == 200, url
    return page.context["cl"].result_count


@pytest.mark.parametrize("role", ROLES)
def test_charts_costs_and_tables_open_for_those_who_may_look(as_, role):
    client = as_(role)
    urls = [reverse("charts"), reverse("chart", args=["flow"]), reverse("costs")]

    found = {client.get(url).status_code for url in urls}

    assert found == {200 if role in LOOK else 403}


def test_an_unknown_chart_is_not_found_and_an_unknown_span_is_an_hour(as_):
    client = as_("viewer")

    assert client.get(reverse("chart", args=["no-such"])).status_code == 404
    assert drawn(client, "400y")["range"] == "1h"


@pytest.mark.parametrize(("span", "stretches"), [("1h", 60), ("24h", 96), ("7d", 168)])
def test_every_series_has_a_value_for_each_stretch(as_, span, stretches):
    failed(minutes_ago(3), "rate_limit_exceeded")
    fold()

    points = drawn(as_("viewer"), span)

    assert list(points["charts"]) == ["flow", "states", "turnaround", "errors"]
    for chart in points["charts"].values():
        assert {len(series["values"]) for series in chart["series"]} <= {stretches}
    assert len(points["starts"]) == len(points["ends"]) == len(points["minutes"]) == stretches


def opened(points: dict, chart: str, place: int = 0) -> list[tuple[int, str]]:
    """Every point of a series that is not 0, with the address that it opens."""
    series = points["charts"][chart]["series"][place]
    return [
        (value, series["url"].replace("_from_", start).replace("_to_", end))
        for value, start, end in zip(
            series["values"], points["starts"], points["ends"], strict=True
        )
        if value
    ]


def test_a_point_opens_the_deliveries_that_it_counts(as_):
    delivered(minutes_ago(10), 3)
    delivered(minutes_ago(5), 2)
    fold()
    delivered(minutes_ago(0), 1)
    client = as_("viewer")

    found = opened(drawn(client), "flow", place=1)

    assert [value for value, _ in found] == [3, 2]
    assert [listed(client, url) for _, url in found] == [3, 2]


def test_a_point_opens_the_requests_that_were_accepted_then(as_):
    a_lane()
    for ago, count in ((10, 3), (5, 2)):
        intake.accept(a_project(), [a_line() for _ in range(count)], now=minutes_ago(ago))
    fold()
    client = as_("viewer")

    found = opened(drawn(client), "flow")

    assert [value for value, _ in found] == [listed(client, url) for _, url in found] == [3, 2]


def test_bad_ends_of_a_time_are_found_by_their_index(as_):
    now = timezone.now()
    rows = request_times._ended(request_times.Between(start=now, end=now), "failed")

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET LOCAL enable_seqscan = off"
            )  # a table without rows is scanned, else

    assert "request_bad_end" in Request.objects.filter(pk__in=rows).explain()


def test_deliveries_that_are_not_counted_yet_are_listed_all_the_same(as_):
    delivered(minutes_ago(10), 3)
    fold()
    delivered(minutes_ago(0), 2)
    now = timezone.now()
    since = f"{now - timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}..{now + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"

    assert listed(as_("viewer"), f"/admin/batching/request/?delivered={since}") == 2


def test_a_bar_opens_the_requests_that_ended_so(as_):
    failed(minutes_ago(10), "rate_limit_exceeded", 3)
    failed(minutes_ago(10), "server_error", 1)
    failed(minutes_ago(100), "rate_limit_exceeded", 2)
    fold()
    client = as_("viewer")

    [(value, url)] = opened(drawn(client), "errors")

    assert value == listed(client, url) == 3
    assert listed(client, "/admin/batching/request/?error=rate_limit_exceeded") == 5


@pytest.mark.parametrize("name", ["delivered", "ended"])
@pytest.mark.parametrize("term", ["x", "..", "2026-11-21T12:00:00Z", "2026-99-99..2026-01-01"])
def test_no_stretch_of_time_lists_nothing(as_, name, term):
    delivered(minutes_ago(1))

    assert listed(as_("viewer"), f"/admin/batching/request/?{name}={term}") == 0


def test_a_table_has_the_points_and_their_lists(as_):
    delivered(minutes_ago(10), 3)
    fold()
    client = as_("viewer")

    page = client.get(reverse("chart", args=["flow"]))
    part = client.get(reverse("chart", args=["flow"]), headers={"HX-Request": "true"})

    [row] = page.context["rows"]
    assert row.cells[1][0] == "3"
    assert listed(client, row.cells[1][1]) == 3
    assert "<html" in page.content.decode()
    assert "<html" not in part.content.decode()


def test_the_page_carries_charts_and_the_part_that_renews_does_not(as_):
    a_request()
    client = as_("viewer")

    page = client.get(reverse("admin:index"), {"range": "24h"}).content.decode()
    part = client.get(reverse("admin:index"), headers={"HX-Request": "true"}).content.decode()

    assert page.count("<canvas") == 4
    assert "range=24h" in page
    assert "<canvas" not in part
    assert '<p class="b-chart-empty b-muted" data-empty="errors">' in page


def test_the_charts_cost_the_same_for_many_rows(as_):
    delivered(minutes_ago(3), 2)
    fold()
    client = as_("viewer")
    drawn(client)

    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            drawn(client)
        return len(asked)

    few = queries()
    for ago in range(20):
        delivered(minutes_ago(ago), 1)
        failed(minutes_ago(ago), f"code-{ago}")
    fold()

    assert queries() == few <= 6


def spent(project: str, lane: Lane, cost: int, *, days_ago: int = 0) -> None:
    day = (timezone.now() - timedelta(days=days_ago)).date()
    Spend.objects.create(
        day=day, project_id=a_project(project).pk, lane_id=lane.pk, is_batch=True, answers=2,
        cost_nano=cost, ordinary_nano=2 * cost, input_tokens=10,
    )  # fmt: skip


def test_costs_are_added_up_by_model_project_and_account(as_):
    spent("one", a_lane("gpt-a"), 3 * 10**9)
    spent("two", a_lane("gpt-b"), 10**9)
    spent("two", a_lane("gpt-a"), 5 * 10**9, days_ago=3)
    spent("two", a_lane("gpt-a"), 10**12, days_ago=31)
    client = as_("viewer")

    def totals(by: str) -> dict[str, str]:
        page = client.get(reverse("costs"), {"by": by, "days": 30})
        return {line.name: line.cost for line in page.context["totals"]}

    assert totals("model") == {"gpt-a": "$ 8.00", "gpt-b": "$ 1.00"}
    assert totals("project") == {"one": "$ 3.00", "two": "$ 6.00"}
    assert totals("account") == {"sandbox": "$ 9.00"}


def test_costs_come_as_csv_without_formulas(as_):
    spent("=cmd()", a_lane("gpt-a"), 1_500_000)

    answer = as_("viewer").get(reverse("costs"), {"by": "project", "format": "csv"})

    rows = answer.content.decode().splitlines()
    assert answer["Content-Disposition"].startswith('attachment; filename="costs-by-project-')
    assert rows[1].split(",")[1:] == ["'=cmd()", "2", "0", "10", "0", "0", "0.0015", "0.0015"]


def test_the_first_page_says_what_today_cost(as_):
    a_request()
    spent("one", a_lane("gpt-a"), 3 * 10**9)

    page = as_("viewer").get(reverse("admin:index"))

    tile = next(tile for tile in page.context["tiles"] if tile.title == "Spent today")
    assert (tile.figure, tile.note) == ("$ 3.00", "$ 3.00 saved")
