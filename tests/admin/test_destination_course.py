"""How destinations fare, in their list and on their pages."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from delivery import destinations
from delivery.models import Attempt, DestinationHealth
from tests.batching.rows import a_destination, a_request

pytestmark = pytest.mark.django_db
LIST = "admin:batching_destination_changelist"
HOUR = timedelta(hours=1)


def attempts(place, count: int, outcome="delivered", **facts) -> None:
    request = a_request(destination=place)
    facts = {"duration_s": 0.25, "ended_at": timezone.now(), "number": 1} | facts
    for _ in range(count):
        Attempt.objects.create(request=request, destination=place, outcome=outcome, **facts)


def text_of(answer) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def test_the_list_tells_how_each_destination_fares(as_):
    place = a_destination(name="orders")
    attempts(place, 3)
    attempts(place, 1, "timeout")
    a_request(destination=place, state="processed", due_at=timezone.now() - 2 * HOUR)
    soon = timezone.now() + timedelta(seconds=30)
    DestinationHealth.objects.create(
        destination=place, openings=1, open_until=soon, last_failure="timeout: 30 s",
        last_failure_at=timezone.now(), senders={"a": [4, soon.timestamp()], "b": [9, 1.0]},
    )  # fmt: skip

    text = text_of(as_("viewer").get(reverse(LIST)))

    for words in (
        "75.0 % of 4 tries",
        "250 ms",
        "4 of 0",
        "2 h",
        "timeout: 30 s",
        "circuit open",
        "next try",
    ):
        assert words in text


def test_no_page_calls_a_destination_open_while_its_circuit_is(as_):
    place = a_destination(name="orders")
    a_request(
        destination=place, state="delivery_failed", dead_at=timezone.now(), dead_cause="timeout"
    )
    soon = timezone.now() + timedelta(seconds=30)
    DestinationHealth.objects.create(destination=place, openings=1, open_until=soon)
    change = reverse("admin:batching_destination_change", args=[place.pk])
    group = {"destination": place.key, "cause": "timeout"}

    client = as_("viewer")
    for answer in (
        client.get(reverse(LIST)),
        client.get(change),
        client.get(reverse("dead_letters"), group),
    ):
        badges = re.findall(
            r'b-badge-(\w+)"><span[^>]*>(\w+)</span>([^<]+)', answer.content.decode()
        )
        assert ("bad", "electrical_services", "circuit open") in badges
        assert "open" not in [words for _, _, words in badges]


def test_the_list_costs_the_same_queries_however_many_there_are(as_, django_assert_max_num_queries):
    for _ in range(12):
        attempts(a_destination(), 2)
    client = as_("viewer")
    client.get(reverse(LIST))

    with django_assert_max_num_queries(14):
        client.get(reverse(LIST))


def test_an_idle_destination_has_dashes_and_its_page_says_how_to_try_it(as_):
    place = a_destination()
    client = as_("viewer")

    page = client.get(reverse("admin:batching_destination_change", args=[place.pk]))

    assert client.get(reverse(LIST)).status_code == 200
    assert "Nothing was tried here yet" in text_of(page)


def test_the_page_draws_how_its_tries_ended_and_says_it_in_a_table(as_):
    place = a_destination()
    attempts(place, 3, ended_at=timezone.now() - 5 * HOUR)
    attempts(place, 1, "http_status", status=503)

    page = as_("viewer").get(reverse("admin:batching_destination_change", args=[place.pk]))

    drawn = [(piece.kind, piece.x, piece.height) for piece in page.context["pieces"]]
    assert drawn == [("good", "0.00%", "100.00%"), ("bad", "95.83%", "33.33%")]
    told = [(one.delivered, one.given_up) for one in page.context["stretches"]]
    assert told == [(0, 1), (3, 0)]
    assert "3 delivered, 0 tried again, 0 given up" in page.content.decode()


def test_what_was_given_up_leads_to_its_group(as_):
    place = a_destination()
    a_request(
        destination=place, state="delivery_failed", dead_at=timezone.now(), dead_cause="timeout"
    )
    client = as_("viewer")

    page = client.get(reverse("admin:batching_destination_change", args=[place.pk]))

    ((cause, url),) = page.context["causes"]
    assert (str(cause), cause.count) == ("timeout", 1)
    assert client.get(url).context["count"] == "1"


def test_a_rotated_secret_is_young(as_):
    place = a_destination(created_at=timezone.now() - 500 * HOUR)
    now = timezone.now()

    destinations.rotate_secret(place, now=now)

    assert place.secret_at == now
    text = text_of(as_("viewer").get(reverse(LIST)))
    assert "20 d" not in text
