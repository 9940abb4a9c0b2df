"""The lane's page, and the order of its batches from the admin."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching import order
from batching.lifecycle import Actor, move
from batching.models import Account, AuditEntry, Batch, Capacity, Lane, Turnaround
from tests.batching.rows import NOW, a_batch, a_lane

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
WHY = {"confirmed": "yes", "reason": "the customer waits"}


@pytest.fixture
def lane():
    return a_lane(token_limit=1_000, max_batches_in_flight=4)


def in_line(lane, **fields):
    facts = {"state": "uploaded", "token_estimate": 300, "next_attempt_at": NOW} | fields
    return a_batch(lane=lane, **facts)


def press(client, page, row, move, **answers):
    url = reverse(f"admin:batching_{page}_{move}_one", args=[row.pk])
    return client.post(url, WHY | answers)


def test_the_page_shows_figures_holders_and_the_line_with_places(as_, lane):
    Capacity.objects.create(account=lane.account, model=lane.model, learned_tokens=800)
    holder = in_line(lane, state="processing", token_estimate=654)
    in_line(lane, wait_reason="waiting for 300 of 800 enqueued tokens", overtaken=3)
    last = in_line(lane, paused_at=NOW)

    page = as_("viewer").get(reverse("admin:batching_lane_change", args=[lane.pk]))

    text = " ".join(page.content.decode().split())
    for words in ("654 of 800 tokens", "146 free · the limit is learned", "600 more wait", "1 of 4",
                  f"#{holder.pk}</a>", "waiting for 300 of 800 enqueued tokens"):  # fmt: skip
        assert words in text
    line = [(one.place, one.batch.pk) for one in page.context["line"]]
    assert line == [(1, last.pk - 1), (2, last.pk)]


def test_the_bar_shows_each_holder_by_its_share_and_when_it_may_be_back(as_, lane):
    Turnaround.objects.create(lane=lane, batches=9, p50_s=3_600, p90_s=7_200)
    now = timezone.now()
    late = in_line(lane, state="processing", token_estimate=250, create_started_at=now - 2 * HOUR)
    next_ = in_line(lane, state="processing", token_estimate=500, create_started_at=now)

    page = as_("viewer").get(reverse("admin:batching_lane_change", args=[lane.pk]))

    first, second = page.context["room"].pieces
    assert (first.batch, first.start, first.length, first.is_late) == (
        late,
        "0.00%",
        "25.00%",
        True,
    )
    assert (second.batch, second.start, second.length) == (next_, "25.00%", "50.00%")
    assert second.free_at == now + HOUR
    assert page.context["room"].limit_at == "100.00%"
    assert "About 500 tokens may be free" in page.content.decode()


def test_the_last_refusals_are_told_with_their_words(as_, lane):
    batch = in_line(lane, state="processing")
    move(batch, "back_off", reason="the provider's queue is full", by=Actor(name="collection"))

    text = as_("viewer").get(reverse("admin:batching_lane_change", args=[lane.pk])).content.decode()

    assert "Last refusals for want of room" in text
    assert "the provider&#x27;s queue is full" in text


def test_a_page_of_a_full_lane_costs_the_same_queries_however_many_hold_it(
    as_, lane, django_assert_max_num_queries
):
    for _ in range(12):
        in_line(lane, state="processing")
        in_line(lane)
    client = as_("viewer")
    url = reverse("admin:batching_lane_change", args=[lane.pk])
    client.get(url)

    with django_assert_max_num_queries(28):
        client.get(url)


def test_the_list_tells_what_waits_since_when_and_why_a_lane_is_paused(as_, lane):
    in_line(lane, waiting_since=timezone.now() - 3 * HOUR)
    Lane.objects.filter(pk=lane.pk).update(paused_at=NOW, pause_reason="by user anna: costs")

    text = as_("viewer").get(reverse("admin:batching_lane_changelist")).content.decode()

    for words in ("300 tokens", "3 h", "by user anna: costs", "<progress"):
        assert words in text


def test_the_list_shows_the_figures_of_each_lane_in_few_queries(
    as_, lane, django_assert_max_num_queries
):
    for n in range(9):
        in_line(a_lane(f"model-{n}", token_limit=500), state="processing")
    client = as_("viewer")
    client.get(reverse("admin:batching_lane_changelist"))

    with django_assert_max_num_queries(18):
        content = client.get(reverse("admin:batching_lane_changelist")).content.decode()

    assert content.count("300 of 500") == 9


@pytest.mark.parametrize(
    ("move", "answers", "expected"),
    [
        ("move_top", {}, "cab"),
        ("move_bottom", {}, "abc"),
        ("move_before", {"other": "b"}, "acb"),
        ("priority", {"priority": "7"}, "cab"),
        ("promote", {}, "cab"),
    ],
)
def test_an_operator_changes_the_order(as_, lane, move, answers, expected):
    batches = dict(zip("abc", [in_line(lane) for _ in range(3)], strict=True))
    sent = {k: batches[v].pk if k == "other" else v for k, v in answers.items()}

    assert press(as_("operator"), "batch", batches["c"], move, **sent).status_code == 302

    assert list(order.line_of(lane)) == [batches[letter] for letter in expected]
    entry = AuditEntry.objects.get(action=f"batch.{move}")
    assert (entry.actor, entry.reason) == ("user the-operator", "the customer waits")


@pytest.mark.parametrize("other", ["", "x", "0"])
def test_a_batch_that_does_not_wait_is_told_in_the_form(as_, lane, other):
    batch = in_line(lane)

    page = press(as_("operator"), "batch", batch, "move_before", other=other)

    assert page.status_code == 200
    assert b"errorlist" in page.content
    assert not AuditEntry.objects.filter(action__startswith="batch").exists()


def test_a_batch_a_lane_and_an_account_are_paused_and_resumed(as_, lane):
    client = as_("operator")
    for page, row in (("batch", in_line(lane)), ("lane", lane), ("account", lane.account)):
        press(client, page, row, "pause")
        row.refresh_from_db()
        assert row.pause_reason == "by user the-operator: the customer waits"
        shown = client.get(reverse(f"admin:batching_{page}_change", args=[row.pk]))
        assert b"by user the-operator" in shown.content

        press(client, page, row, "resume")
        row.refresh_from_db()
        assert row.paused_at is None


def test_the_first_page_tells_what_is_paused(as_, lane):
    Lane.objects.update(paused_at=NOW, pause_reason="by user anna: costs")
    Account.objects.update(paused_at=NOW, pause_reason="by user bert: key")

    content = as_("operator").get(reverse("admin:index")).content.decode()

    assert "is paused by user anna: costs" in content
    assert "Account sandbox is paused by user bert: key" in content


def test_learning_is_frozen_and_goes_on(as_, lane):
    client = as_("operator")
    press(client, "lane", lane, "freeze")
    assert Capacity.objects.get().is_frozen

    press(client, "lane", lane, "unfreeze")
    assert not Capacity.objects.get().is_frozen
    assert Batch.objects.count() == 0
