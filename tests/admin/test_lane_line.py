"""Reordering a lane: one move by drag, keys or plain buttons, logged; an old view is refused kindly."""

from __future__ import annotations

import pytest
from django.urls import reverse

from batching import order
from batching.models import AuditEntry, Batch
from tests.admin.conftest import ROLES
from tests.batching.rows import NOW, a_batch, a_lane

pytestmark = pytest.mark.django_db


@pytest.fixture
def lane():
    return a_lane()


def in_line(lane, **fields) -> Batch:
    facts = {"state": "uploaded", "token_estimate": 300, "next_attempt_at": NOW} | fields
    return a_batch(lane=lane, **facts)


@pytest.fixture
def line(lane) -> dict[str, Batch]:
    return {letter: in_line(lane) for letter in "abcd"}


def letters(lane, line) -> str:
    names = {batch.pk: letter for letter, batch in line.items()}
    return "".join(names.get(batch.pk, "?") for batch in order.line_of(lane))


def seen(line, shown="abcd") -> str:
    return ",".join(str(line[letter].pk) for letter in shown)


def move(client, lane, line, *, shown="abcd", is_part=True, **asked):
    url = reverse("admin:batching_lane_line", args=[lane.pk])
    headers = {"HX-Request": "true", "HX-Target": "lane_line"} if is_part else {}
    asked = {k: line[v].pk if v in line else v for k, v in asked.items()}
    return client.post(url, {"seen": seen(line, shown)} | asked, headers=headers)


@pytest.mark.parametrize(
    ("batch", "before", "expected"),
    [
        ("d", "a", "dabc"),
        ("d", "b", "adbc"),
        ("a", "c", "bacd"),
        ("a", "", "bcda"),
        ("b", "c", "abcd"),
    ],
)
def test_a_batch_is_dragged_before_another_or_behind_all(as_, lane, line, batch, before, expected):
    answer = move(as_("operator"), lane, line, batch=batch, to="before", before=before)

    assert letters(lane, line) == expected
    assert [one.batch.pk for one in answer.context["line"]] == [line[x].pk for x in expected]
    assert answer.content.strip().startswith(b'<section id="lane_line"')


@pytest.mark.parametrize(
    ("to", "expected"), [("top", "cabd"), ("up", "acbd"), ("down", "abdc"), ("bottom", "abdc")]
)
def test_plain_buttons_do_the_same_without_a_script(as_, lane, line, to, expected):
    answer = move(as_("operator"), lane, line, is_part=False, do=f"{to}:{line['c'].pk}")

    assert answer.status_code == 302
    assert answer["Location"].endswith(f"/{lane.pk}/change/#lane_line")
    assert letters(lane, line) == expected


def test_a_move_is_one_line_of_the_audit_log_with_its_reason(as_, lane, line):
    client = as_("operator")
    move(client, lane, line, batch="d", to="before", before="b", reason="the customer waits")
    move(client, lane, line, shown="adbc", batch="a", to="bottom")

    entries = AuditEntry.objects.filter(action__startswith="batch.").order_by("pk")
    assert [(e.action, e.reason) for e in entries] == [
        ("batch.move_before", "the customer waits"),
        ("batch.move_bottom", "moved on the page of its lane"),
    ]


def test_an_old_view_is_refused_and_the_line_shown_as_it_is(as_, lane, line):
    answer = move(as_("operator"), lane, line, shown="bacd", batch="d", to="top")

    assert letters(lane, line) == "abcd"
    assert "Someone changed the order meanwhile" in answer.content.decode()
    assert [one.batch.pk for one in answer.context["line"]] == [line[x].pk for x in "abcd"]
    assert not AuditEntry.objects.filter(action__startswith="batch.").exists()


def test_batches_that_left_or_came_meanwhile_do_not_make_a_view_old(as_, lane, line):
    Batch.objects.filter(pk=line["a"].pk).update(state="processing")
    newcomer = in_line(lane)

    move(as_("operator"), lane, line, batch="c", to="top")

    assert letters(lane, line) == "cbd?"
    assert order.line_of(lane).last() == newcomer


def test_what_no_longer_waits_is_not_moved(as_, lane, line):
    Batch.objects.filter(pk=line["b"].pk).update(state="processing")

    client = as_("operator")
    for asked in ({"batch": "b", "to": "top"}, {"batch": "a", "to": "before", "before": "b"}):
        assert b"Someone changed the order" in move(client, lane, line, **asked).content
    assert letters(lane, line) == "acd"


@pytest.mark.parametrize(
    "asked",
    [
        {"batch": "a"},
        {"batch": "x", "to": "top"},
        {"batch": "a", "to": "sideways"},
        {"batch": "a", "to": "top", "seen": "1;2"},
        {"do": "top:x"},
        {},
    ],
)
def test_what_is_no_move_does_nothing(as_, lane, line, asked):
    answer = move(as_("operator"), lane, line, **asked)

    assert answer.status_code == 200
    assert letters(lane, line) == "abcd"


def test_where_it_stands_already_nothing_is_written(as_, lane, line):
    answer = move(as_("operator"), lane, line, batch="a", to="top")

    assert "It is there already." in answer.content.decode()
    assert not AuditEntry.objects.filter(action__startswith="batch.").exists()


def test_the_end_of_what_is_shown_is_not_the_end_of_the_line(as_, lane, line):
    move(as_("operator"), lane, line, shown="abc", batch="a", to="before", before="")

    assert letters(lane, line) == "bcad"


@pytest.mark.parametrize("role", ROLES)
def test_only_those_who_operate_batches_may_move_them(as_, lane, line, role):
    client = as_(role)
    page = client.get(reverse("admin:batching_lane_change", args=[lane.pk]))

    answer = move(client, lane, line, batch="d", to="top")

    operates = role not in ("nobody", "viewer")
    assert answer.status_code == (200 if operates else 403)
    assert (b"b-handle" in page.content) == operates
    assert letters(lane, line) == ("dabc" if operates else "abcd")


def test_a_lane_that_is_not_there_and_a_look_are_refused(as_, lane):
    client = as_("operator")

    assert client.post(reverse("admin:batching_lane_line", args=[0])).status_code == 404
    assert client.get(reverse("admin:batching_lane_line", args=[lane.pk])).status_code == 405


def test_the_line_renews_itself_alone(as_, lane, line, django_assert_max_num_queries):
    client = as_("viewer")
    url = reverse("admin:batching_lane_change", args=[lane.pk])

    with django_assert_max_num_queries(9):
        answer = client.get(url, headers={"HX-Request": "true", "HX-Target": "lane_line"})

    assert answer.content.strip().startswith(b'<section id="lane_line"')
