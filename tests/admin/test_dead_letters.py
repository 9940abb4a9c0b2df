"""The dead letters page: groups by cause, a group with its samples, and the way back."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching.admin import running
from batching.models import Request, Run
from delivery import replays
from delivery.models import Attempt, Replay
from tests.admin.conftest import ROLES
from tests.batching.rows import a_destination, a_request, an_answer

pytestmark = pytest.mark.django_db


def page() -> str:
    return reverse("dead_letters")


def dead(place, count=1, cause="http_status:503", **fields) -> list[Request]:
    at = timezone.now() - timedelta(minutes=3)
    facts = {"state": "delivery_failed", "dead_at": at, "dead_cause": cause, "settled_at": at}
    return [a_request(destination=place, **(facts | fields)) for _ in range(count)]


def links(content: bytes, words: str) -> list[str]:
    text = content.decode()
    found = re.findall(r'<a[^>]*href="([^"]*)"[^>]*>([^<]*)', text)
    return [html.unescape(url) for url, said in found if words in said]


@pytest.mark.parametrize("role", ROLES)
def test_those_who_look_see_the_groups_and_those_who_operate_may_act(as_, role):
    place = a_destination(name="orders")
    dead(place, 2)
    client = as_(role)
    opened = {"destination": place.key, "cause": "http_status:503"}

    shown, group = client.get(page()), client.get(page(), opened)

    operates = role not in ("nobody", "viewer")
    assert {shown.status_code, group.status_code} == {403 if role == "nobody" else 200}
    assert bool(links(shown.content, "Retry all")) == operates
    assert bool(links(group.content, "Discard all")) == operates
    assert bool(links(group.content, "Retry this one")) == operates


def test_groups_stand_by_size_and_each_opens_its_own(as_):
    orders, mails = a_destination(name="orders"), a_destination(name="mails")
    dead(orders)
    dead(mails, 3, "timeout")
    client = as_("viewer")

    shown = client.get(page())

    assert [(line.place.name, str(line.group.cause)) for line in shown.context["lines"]] == [
        ("mails", "timeout"),
        ("orders", "http status 503"),
    ]
    opened = client.get(shown.context["lines"][0].url)
    assert (opened.context["place"], opened.context["count"]) == (mails, "3")
    assert "It answered too late" in opened.content.decode()


def test_a_group_shows_what_the_receiver_said_to_its_newest(as_):
    place = a_destination()
    (request,) = dead(place, cause="http_status:422", tries=3)
    facts = {"request": request, "destination": place, "outcome": "http_status", "status": 422}
    Attempt.objects.create(number=2, answer="no such table", **facts)
    Attempt.objects.create(number=3, answer="field total is missing", **facts)

    shown = as_("viewer").get(page(), {"destination": place.key, "cause": "http_status:422"})

    text = shown.content.decode()
    assert "field total is missing" in text
    assert "no such table" not in text
    assert "mend it there, then retry" in text


def test_what_a_group_counts_is_what_its_list_shows_and_its_retry_sends(as_):
    place = a_destination()
    for request in dead(place, 2):
        an_answer(request)
    dead(place, 1, "timeout")
    client = as_("operator")
    opened = client.get(page(), {"destination": place.key, "cause": "http_status:503"})

    (listed,) = links(opened.content, "See all 2")
    (retry,) = links(opened.content, "Retry all 2")
    terms = {"sent": "failed", "per_second": "50"}
    client.post(retry, terms | {"confirmed": "yes", "reason": "it is well again"})
    replays.step_due(timezone.now())
    replays.step_due(timezone.now())

    assert client.get(listed).status_code == 200
    assert Replay.objects.get().filter == {"destination": place.key, "cause": "http_status:503"}
    states = Request.objects.values_list("dead_cause", "state").order_by("pk")
    assert list(states) == [
        (None, "processed"),
        (None, "processed"),
        ("timeout", "delivery_failed"),
    ]


def test_a_group_is_discarded_with_a_reason_and_taken_back(as_):
    place = a_destination()
    dead(place, 2)
    dead(place, 1, "timeout")
    client = as_("operator")
    opened = client.get(page(), {"destination": place.key, "cause": "http_status:503"})

    client.post(links(opened.content, "Discard all 2")[0], {"reason": "the customer left"})
    running.step_due(timezone.now())

    assert Run.objects.get().done == 2
    assert Request.objects.given_up().count() == 1
    after = client.get(page())
    assert len(after.context["lines"]) == 1
    assert links(after.content, "2 discarded")
    take_back = reverse("admin:batching_request_run", args=["take_back"])
    client.post(f"{take_back}?due=discarded", {"reason": "they are back"})
    running.step_due(timezone.now())
    assert Request.objects.given_up().count() == 3


@pytest.mark.parametrize(("state", "words"), [("disabled", "Enable it"), ("paused", "Resume it")])
def test_a_group_leads_to_what_has_to_be_mended(as_, state, words):
    place = a_destination(**{f"{state}_at": timezone.now()}, stop_reason="410 Gone")
    dead(place, cause="gone:410")

    shown = as_("operator").get(page(), {"destination": place.key, "cause": "gone:410"})

    assert links(shown.content, words)
    assert "410 Gone" in shown.content.decode()


def test_an_empty_page_teaches_what_comes_here(as_):
    assert b"becomes a dead letter" in as_("viewer").get(page()).content


@pytest.mark.parametrize("asked", [{"destination": "dst_nobody"}, {"destination": "a\0"}])
def test_a_group_of_no_destination_is_not_found(as_, asked):
    assert as_("viewer").get(page(), asked).status_code == 404


@pytest.mark.parametrize("cause", ["", "unknown", "nonsense:1x", "http_status:"])
def test_a_cause_that_nothing_was_given_up_for_is_an_empty_group(as_, cause):
    shown = as_("viewer").get(page(), {"destination": a_destination().key, "cause": cause})

    assert b"This group is empty by now" in shown.content


def test_the_page_costs_the_same_queries_however_many_are_dead(as_, django_assert_max_num_queries):
    client = as_("viewer")
    for _ in range(6):
        dead(a_destination(), 3)
    client.get(page())

    with django_assert_max_num_queries(14):
        client.get(page())
