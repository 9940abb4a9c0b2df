"""Replays in the admin: ordered after a look at what they mean, watched, stopped."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching.models import AuditEntry, Request
from delivery import replays
from delivery.models import Replay
from tests.admin.conftest import person
from tests.batching.rows import a_batch, a_destination, a_project, a_request
from tests.delivery.results import a_result

LIST = reverse("admin:batching_request_changelist")
LISTED = reverse("admin:batching_request_replay")
FAILED = {"sent": "failed", "per_second": "20"}
ALL = {"sent": "all", "per_second": "20"}


def given_up(place=None, ago=timedelta(hours=1), **fields):
    at = timezone.now() - ago
    fields = {"state": "delivery_failed", "due_at": None, "dead_at": at, "settled_at": at} | fields
    return a_result(place, **fields)


def delivered(place=None, **fields):
    fields = {"state": "delivered", "dead_at": None, "delivered_at": timezone.now()} | fields
    return given_up(place, **fields)


def order_at(place):
    return reverse("admin:batching_destination_redeliver_one", args=[place.pk])


def page_of(replay):
    return reverse("admin:delivery_replay_change", args=[replay.pk])


def a_replay(**fields):
    fields = {"who": "the-operator", "reason": "it was down", "per_second": 5.0} | fields
    return Replay.objects.create(**fields)


def sure(terms, **more):
    return {**terms, "confirmed": "yes", "reason": "the receiver was down", **more}


# A destination's page


def test_what_was_given_up_at_a_destination_in_some_time_is_shown_and_then_sent_again(as_):
    place, client = a_destination(), as_("operator")
    row = given_up(place)
    given_up(place, ago=timedelta(days=3))
    delivered(place)
    given_up()
    since = f"{timezone.now() - timedelta(days=1):%Y-%m-%dT%H:%M}"

    seen = client.post(order_at(place), {**FAILED, "from_": since})
    answer = client.post(order_at(place), sure(FAILED, from_=since))

    replay = Replay.objects.get()
    assert (seen.context["look"].matched, seen.context["look"].samples) == (1, [row])
    assert answer.url == page_of(replay)
    replays.step_due(timezone.now())
    assert list(Request.objects.filter(due_at__isnull=False)) == [row]
    assert (replay.project, replay.per_second, replay.only_failed) == (place.project, 20, True)


def test_an_order_stands_in_the_audit_log_with_its_terms_and_its_reason(as_):
    place = a_destination()
    given_up(place)

    as_("operator").post(order_at(place), sure(FAILED))

    entry, replay = AuditEntry.objects.get(action="replay.start"), Replay.objects.get()
    assert (entry.object_key, entry.reason) == (replay.key, "the receiver was down")
    assert entry.actor == "user the-operator"
    assert entry.after["filter"] == {"destination": place.key}


def test_what_was_delivered_goes_again_only_after_a_second_yes(as_):
    place, client = a_destination(), as_("operator")
    delivered(place)
    given_up(place)

    asked = client.post(order_at(place), sure(ALL))

    assert "Tick this too" in asked.content.decode()
    assert not Replay.objects.exists()
    assert client.post(order_at(place), sure(ALL, sure="on")).status_code == 302
    replays.step_due(timezone.now())
    assert Request.objects.filter(due_at__isnull=False).count() == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per_second": "0"}, "greater than or equal to 0.1"),
        ({"per_second": "fast"}, "Enter a number"),
        ({"sent": "everything"}, "Select a valid choice"),
        ({"from_": "yesterday"}, "Enter a valid date/time"),
        ({"from_": "2026-03-02T00:00", "to": "2026-03-01T00:00"}, "later than"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_wrong_terms_are_told_beside_their_field_and_nothing_is_ordered(as_, changes, said):
    place = a_destination()

    page = as_("operator").post(order_at(place), sure(FAILED, **changes)).content.decode()

    assert said in page
    assert not Replay.objects.exists()


def test_nothing_is_ordered_without_a_reason_or_by_looking(as_):
    place, client = a_destination(), as_("operator")
    given_up(place)

    for answer in (
        client.get(order_at(place)),
        client.post(order_at(place), FAILED),
        client.post(order_at(place), {**FAILED, "confirmed": "yes"}),
        client.post(order_at(place), sure(FAILED, change="yes")),
    ):
        assert answer.status_code == 200
    assert not Replay.objects.exists()


def test_a_destination_with_nothing_to_send_again_offers_no_order(as_):
    page = as_("operator").post(order_at(a_destination()), FAILED).content.decode()

    assert "Nothing matches" in page
    assert 'name="confirmed"' not in page


# A list of requests


def test_all_that_a_list_shows_is_counted_with_five_samples_and_sent_again(as_):
    batch, client = a_batch(state="delivered"), as_("operator")
    for _ in range(7):
        given_up(batch=batch)
    given_up()

    seen = client.post(f"{LISTED}?batch={batch.pk}", FAILED)
    client.post(f"{LISTED}?batch={batch.pk}", sure(FAILED))

    assert (seen.context["look"].matched, len(seen.context["samples"])) == (7, 5)
    replay = Replay.objects.get()
    assert (replay.filter, replay.project) == ({"batch": batch.key}, None)
    replays.step_due(timezone.now())
    assert Request.objects.filter(due_at__isnull=False).count() == 7


FILTERS = {
    "state": lambda row: {"state__exact": "delivery_failed"},
    "project": lambda row: {"project__id__exact": row.project_id},
    "batch number": lambda row: {"batch": f"#{row.batch_id}"},
    "batch key": lambda row: {"batch": row.batch.key},
    "custom_id": lambda row: {"q": row.custom_id},
    "its beginning": lambda row: {"q": "order-*"},
    "given up at key": lambda row: {"given_up_at": row.destination.key},
    "given up at name": lambda row: {"given_up_at": "crm"},
    "several": lambda row: {"due": "never", "q": "order-*", "p": 1},
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_replay_means_just_what_the_list_shows(as_, name):
    place = a_destination(name="crm", project=a_project("shop"))
    batch = a_batch(state="delivered")
    row = given_up(place, batch=batch, project=place.project, custom_id="order-1")
    delivered(a_destination(), custom_id="other-1")
    asked, client = FILTERS[name](row), as_("operator")

    listed = client.get(LIST, {k: v for k, v in asked.items() if k != "p"})
    link = listed.content.decode().split(f'href="{LISTED}?')[1].split('"')[0].replace("&amp;", "&")
    look = client.post(f"{LISTED}?{link}", FAILED).context["look"]

    assert [r.pk for r in listed.context["cl"].result_list] == [row.pk]
    assert [r.pk for r in look.samples] == [row.pk]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"due": "now"}, "sent by itself"),
        ({"state__exact": "pending"}, "has no result"),
        ({"batch": "bat_01"}, "whole key"),
        ({"batch": "999999"}, "no batch"),
        ({"submission": "sub_01"}, "whole key"),
        ({"project__id__exact": "999999999999999999999"}, "no project"),
        ({"q": "x" * 600}, "length"),
        ({"lane__id__exact": "1"}, "lane__id__exact"),
        ({"label": "x"}, "narrowed by label"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_list_that_a_replay_can_not_mean_exactly_is_refused_with_the_reason(as_, asked, said):
    page = as_("operator").get(LISTED, asked, follow=True)

    assert said in page.content.decode()
    assert not Replay.objects.exists()


def test_one_request_is_redelivered_on_its_own_page(as_):
    row = given_up()

    page = as_("operator").get(LISTED, {"q": row.key}, follow=True)

    assert "on its own page" in page.content.decode()


@pytest.mark.parametrize(
    ("asked", "said"),
    [({}, "is too much"), ({"batch": "bat_" + "0" * 32}, "There is no batch")],
    ids=["everything", "a batch that is gone"],
)
def test_an_order_that_the_core_refuses_is_told_on_the_page(as_, asked, said):
    delivered()

    page = as_("operator").post(f"{LISTED}?{'&'.join(f'{k}={v}' for k, v in asked.items())}", ALL)

    assert said in page.content.decode()


# A replay


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"matched": None, "counted": 12}, "is counted first"),
        ({"matched": 100, "done": 40, "skipped": 10}, "50 left, at most 5 a second: about 10 s"),
        ({"matched": 100, "error": "OperationalError: busy"}, "is taken again at"),
        ({"matched": 9, "done": 9, "state": "done", "ended_at": timezone.now()}, "made due by"),
        ({"state": "failed", "error": "there is no batch", "ended_at": timezone.now()}, "no batch"),
        ({"state": "stopped", "ended_at": timezone.now()}, "Stopped at"),
    ],
    ids=["counts", "sends", "failing", "done", "failed", "stopped"],
)
def test_a_replays_page_says_how_far_it_is_and_what_comes_next(as_, fields, said):
    replay = a_replay(**fields)

    page = as_("viewer").get(page_of(replay)).content.decode()

    assert said in page
    assert "it was down" in page
    assert "the-operator" in page


def test_a_late_replay_says_what_to_look_at(as_):
    late = timezone.now() - timedelta(minutes=5)
    replay = a_replay(matched=5, next_step_at=late)

    assert "does the clock tick" in as_("viewer").get(page_of(replay)).content.decode()


@pytest.mark.parametrize(
    ("state", "status", "polls"), [("running", 200, True), ("done", 286, False)]
)
def test_a_page_asks_for_its_progress_until_the_replay_has_ended(as_, state, status, polls):
    replay = a_replay(matched=5, state=state)
    client = as_("viewer")

    whole = client.get(page_of(replay)).content.decode()
    part = client.get(page_of(replay), headers={"HX-Request": "true"})

    assert ('hx-trigger="every' in whole) == polls
    assert part.status_code == status
    assert part.content.decode().strip().startswith('<section id="_walk_progress"')
    assert ('hx-trigger="every' in part.content.decode()) == polls


def test_progress_is_for_those_who_may_look(as_):
    url = page_of(a_replay())

    assert as_("nobody").get(url, headers={"HX-Request": "true"}).status_code == 403


def test_an_operator_stops_a_running_replay_and_a_viewer_is_offered_nothing(as_, client):
    replay = a_replay(matched=5)
    stop = reverse("admin:delivery_replay_stop_one", args=[replay.pk])

    as_("operator").post(stop, {"confirmed": "yes", "reason": "enough"})

    replay.refresh_from_db()
    assert (replay.state, replay.is_running) == ("stopped", False)
    assert AuditEntry.objects.get(action="replay.stop").reason == "enough"
    assert stop not in as_("admin").get(page_of(replay)).content.decode()
    client.force_login(person("viewer"))
    assert stop not in client.get(page_of(a_replay())).content.decode()


def test_replays_are_listed_with_their_progress_in_few_queries(as_, django_assert_max_num_queries):
    for done in range(12):
        a_replay(matched=100, done=done, project=a_project())
    client, url = as_("viewer"), reverse("admin:delivery_replay_changelist")

    with django_assert_max_num_queries(12):
        page = client.get(url).content.decode()

    assert "11 · 0 · 89" in page
    assert "it was down" in page
    found = client.get(url, {"q": Replay.objects.first().key})
    assert found.context["cl"].result_count == 1


def test_a_destinations_page_tells_why_results_were_given_up_and_leads_to_them(as_):
    place, client = a_destination(), as_("viewer")
    a_request(destination=place, state="delivery_failed", dead_at=timezone.now())

    page = client.get(reverse("admin:batching_destination_change", args=[place.pk]))
    link = reverse("admin:batching_request_changelist") + f"?given_up_at={place.key}"

    assert "Given up, by how the last try ended" in page.content.decode()
    assert link in page.content.decode()
    assert client.get(link).context["cl"].result_count == 1
