"""Times on pages: UTC for whoever has no script, and what the script needs to show the browser's zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.template import Context, Template
from django.urls import reverse

from batching.admin import shown
from batching.lifecycle import move
from tests.batching.rows import a_batch, a_request

AT = datetime(2026, 8, 21, 16, 3, 5, tzinfo=timezone(timedelta(hours=2)))


def test_a_moment_says_utc_and_carries_the_instant():
    html = shown.moment(AT)

    assert 'datetime="2026-08-21T16:03:05+02:00"' in html
    assert 'title="2026-08-21 14:03:05 UTC"' in html
    assert ">2026-08-21 14:03:05 UTC</time>" in html
    assert shown.moment(None) == "-"


@pytest.mark.parametrize("form", ["moment", "age", "clock"])
def test_each_form_of_a_time_tells_the_script_which_it_is(form):
    html = Template(f"{{% load times %}}{{{{ at|{form} }}}}").render(Context({"at": AT}))

    assert f'data-time="{form}"' in html


def test_what_was_and_what_will_be_are_told_apart():
    now = datetime.now(UTC)

    assert ">1 h 1 min</time>" in shown.age(now - timedelta(seconds=3_661))
    assert ">in 59 min" in shown.age(now + timedelta(minutes=60))


@pytest.mark.parametrize("make", [a_batch, a_request])
def test_every_moment_on_a_page_is_a_time(as_, make):
    row = make()
    name = f"admin:batching_{row._meta.model_name}_change"

    page = as_("viewer").get(reverse(name, args=[row.pk])).content.decode()

    assert f'datetime="{row.created_at.isoformat()}" data-time="moment"' in page
    assert f">{row.created_at:%Y-%m-%d %H:%M:%S}<" not in page


def test_a_lists_column_of_moments_is_a_link_still(as_):
    move(a_request(), "cancel", reason="not wanted")

    page = as_("viewer").get(reverse("admin:django_fsm_log_statelog_changelist")).content.decode()

    link = page.split('data-time="moment"')[0].rsplit("<", 2)[1]
    assert link.startswith("a href")


def test_moments_in_a_sentence_are_times_and_the_rest_is_escaped():
    sentence = "It <waits> until 2026-08-21 14:03 UTC, or 2026-99-99 14:03 UTC."

    html = Template("{% load times %}{{ it|moments }}").render(Context({"it": sentence}))

    assert html.startswith('It &lt;waits&gt; until <time datetime="2026-08-21T14:03:00+00:00"')
    assert html.endswith("</time>, or 2026-99-99 14:03 UTC.")


@pytest.mark.parametrize("hours", [0, 11, -11])
def test_a_time_of_day_in_a_sentence_is_the_nearest(hours):
    at = (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)

    html = Template("{% load times %}{{ it|moments }}").render(
        Context({"it": f"at {at:%H:%M:%S} UTC"})
    )

    assert f'datetime="{at.isoformat()}" data-time="clock"' in html


def test_pages_bring_the_script(as_):
    assert b"batcher/times.js" in as_("viewer").get(reverse("admin:index")).content
