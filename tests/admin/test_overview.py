"""The first page: what needs a person, told once, linked to exactly those rows, and cheap."""

from __future__ import annotations

import html
import re
from collections import namedtuple
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from batching.admin import concerns, overview
from batching.models import Account, Flag, Lane, Pulse, Turnaround
from delivery.models import DestinationHealth, IntakeStatus
from delivery.standing import stored_cause
from tests.batching.rows import a_batch, a_destination, a_lane, a_request, an_account

GB = 10**9
Room = namedtuple("Room", "total used free")


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A disk with much room; tests set its free bytes."""
    free = {"bytes": 500 * GB}
    monkeypatch.setattr(
        concerns.shutil, "disk_usage", lambda _path: Room(1000 * GB, 0, free["bytes"])
    )
    return free


@pytest.fixture
def ticking(db):
    """Every line of the clock was taken up just now."""
    for line in PeriodicTask.objects.all():
        name = line.task.rsplit(".", 1)[-1]
        Pulse.objects.update_or_create(name=name, defaults={"began_at": timezone.now()})


def told() -> dict[str, concerns.Concern]:
    return {one.happened: one for one in concerns.concerns(timezone.now(), is_new=False)}


def only() -> concerns.Concern:
    found = list(told().values())
    assert len(found) == 1, found
    return found[0]


def dead(count: int = 1, *, outcome: str = "", status: int | None = None, state="delivery_failed"):
    place = a_destination()
    for _ in range(count):
        cause = stored_cause(outcome, status)
        a_request(state=state, dead_at=timezone.now(), dead_cause=cause, destination=place)


def rows_behind(client, url: str) -> int:
    return client.get(html.unescape(url)).context["cl"].result_count


def test_dead_letters_are_told_by_cause_and_open_the_list_of_just_those(as_, ticking):
    dead(2, outcome="http_status", status=503)
    dead(outcome="http_status", status=500)
    dead(3, outcome="timeout")
    dead()
    client = as_("viewer")

    found = {one.happened: rows_behind(client, one.url) for one in told().values()}

    assert found == {
        "3 results were given up: timeout.": 3,
        "2 results were given up: http status 503.": 2,
        "1 result was given up: http status 500.": 1,
        "1 result was given up: cause not known.": 1,
    }


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_a_bad_end_that_could_not_be_told_is_a_dead_letter_too(as_, ticking, state):
    dead(outcome="timeout", state=state)
    client = as_("viewer")

    page = client.get(reverse("admin:index"))

    tile = next(tile for tile in page.context["tiles"] if tile.title == "Dead letters")
    assert tile.figure == "1"
    assert rows_behind(client, tile.url) == rows_behind(client, only().url) == 1


def test_many_causes_end_in_one_line_for_all(ticking, monkeypatch):
    monkeypatch.setattr(concerns, "CAUSES_SHOWN", 2)
    for outcome in ("timeout", "gone", "tls_error"):
        dead(outcome=outcome)

    assert "3 results were given up: all causes." in told()
    assert len(told()) == 3


@pytest.mark.parametrize("term", ["http_status:x", "http_status:99999999999999999999", "no such"])
def test_no_cause_lists_nothing(as_, ticking, term):
    dead(outcome="http_status", status=500)

    url = reverse("admin:batching_request_changelist") + f"?given_up_because={term}"

    assert rows_behind(as_("viewer"), url) == 0


def paused(row, attribute="pause_reason", reason="by maria: rain"):
    type(row).objects.filter(pk=row.pk).update(**{"paused_at": timezone.now(), attribute: reason})


PLACES = {
    "destination": (lambda: paused(a_destination(), "stop_reason", "rain"), "is paused: rain"),
    "account": (lambda: paused(an_account("a")), "Account a is paused by maria: rain"),
    "lane": (lambda: paused(a_lane("m")), "Lane m /v1/responses · sandbox is paused"),
    "batch": (lambda: paused(a_batch(state="uploaded")), "is paused by maria: rain"),
    "building": (
        lambda: paused(a_batch(state="building", next_attempt_at=None)),
        "is paused by maria: rain",
    ),
    "disabled": (
        lambda: a_destination(disabled_at=timezone.now(), stop_reason="410"),
        "was disabled: 410",
    ),
    "failing": (lambda: an_account("a", last_error="no funds"), "Account a fails: no funds"),
    "silent": (lambda: an_account("a", silent_since=timezone.now()), "Account a answers no"),
    "failed": (lambda: a_batch(state="failed", last_error="bad key"), " failed: bad key"),
    "intake": (
        lambda: IntakeStatus.objects.create(
            queue="q", state="queue_missing", detail="no q", since=timezone.now(),
            seen_at=timezone.now(),
        ),
        "nothing is taken: no q",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_what_is_stopped_is_told_with_its_reason_and_its_list(as_, ticking, name):
    make, text = PLACES[name]
    a_destination()
    a_batch(state="processing", create_started_at=timezone.now())
    make()

    concern = only()

    assert text in concern.happened
    assert concern.next_step
    assert concern.remedy
    assert rows_behind(as_("viewer"), concern.url) == 1


def test_many_of_a_kind_are_one_line(as_, ticking):
    for number in range(5):
        paused(a_lane(f"m-{number}"))

    concern = only()

    assert concern.happened.startswith("5 lanes (m-0 /v1/responses · sandbox, m-1")
    assert concern.happened.endswith("…) are paused")
    assert rows_behind(as_("viewer"), concern.url) == 5


def test_a_deleted_destination_and_an_account_that_is_off_concern_nobody(ticking):
    now = timezone.now()
    a_destination(deleted_at=now, disabled_at=now)
    an_account("off", is_enabled=False, last_error="x", paused_at=now, silent_since=now)
    paused(a_batch(state="delivered"))

    assert told() == {}


def test_an_open_circuit_says_when_one_try_decides(as_, ticking):
    until = timezone.now() + timedelta(minutes=3)
    for open_until in (until, timezone.now() - timedelta(minutes=1)):
        DestinationHealth.objects.create(
            destination=a_destination(), open_until=open_until, last_failure="http status 500"
        )

    concern = only()

    assert "its circuit is open: http status 500" in concern.happened
    assert f"{until:%H:%M:%S} UTC" in concern.next_step
    assert rows_behind(as_("viewer"), concern.url) == 1


def at_provider(lane: Lane, *, hours: float):
    return a_batch(
        lane=lane,
        state="processing",
        create_started_at=timezone.now() - timedelta(hours=hours),
    )


def test_a_batch_is_slow_beyond_twice_its_lanes_usual_time(as_, ticking):
    known, new = a_lane("known"), a_lane("new")
    Turnaround.objects.create(lane=known, p50_s=1800, p90_s=3600, batches=9)
    at_provider(known, hours=1.9)
    at_provider(new, hours=23)
    slow = {at_provider(known, hours=2.1).pk, at_provider(new, hours=24.1).pk}

    concern = only()

    assert {int(pk) for pk in re.findall(r"#(\d+)", concern.happened)} == slow
    assert rows_behind(as_("viewer"), concern.url) == 2


def beats(**ago: timedelta):
    for name, span in ago.items():
        Pulse.objects.filter(name=name).update(began_at=timezone.now() - span)


def test_a_clock_that_stands_still_is_told(ticking):
    hours = timedelta(hours=2)
    Pulse.objects.update(began_at=timezone.now() - hours)
    PeriodicTask.objects.update(last_run_at=timezone.now() - hours)
    assert only().happened == "The clock has not ticked for 2 h."

    PeriodicTask.objects.filter(name="batcher: pack").update(last_run_at=timezone.now())

    assert only().happened == "No worker has made progress for 2 h, though the clock rings."


def test_a_queue_that_nobody_serves_is_told(ticking):
    beats(send=timedelta(minutes=6), tidy=timedelta(minutes=14), forget=timedelta(minutes=29))

    assert "taken up send for a while (batcher.delivery)" in only().happened


def test_a_line_that_is_switched_off_is_told_and_not_called_late(as_, ticking):
    PeriodicTask.objects.filter(name="batcher: send").update(enabled=False)
    beats(send=timedelta(hours=1))

    concern = only()

    assert concern.happened == "The clock's line send is switched off."
    assert rows_behind(as_("viewer"), concern.url) == 1


@pytest.mark.parametrize(
    ("free", "tone"), [(21 * GB, None), (19 * GB, "warning"), (GB // 2, "bad")]
)
def test_a_disk_that_is_nearly_full_is_told(ticking, room, free, tone):
    room["bytes"] = free

    assert [one.tone for one in told().values()] == ([tone] if tone else [])


def test_what_is_broken_comes_before_what_people_did(ticking):
    Flag.objects.create(name="maintenance", is_on=True)
    paused(a_lane())
    an_account("b", last_error="x")

    assert [one.tone for one in told().values()] == ["bad", "warning", "warning"]


def everything(count: int) -> None:
    """So many troubles of each kind."""
    for _ in range(count):
        for make, _text in PLACES.values():
            Account.objects.filter(name="a").update(name=f"a-{Account.objects.count()}")
            IntakeStatus.objects.all().delete()
            make()
        dead(outcome="timeout")
        at_provider(a_lane("slow"), hours=30)
        DestinationHealth.objects.create(
            destination=a_destination(), open_until=timezone.now() + timedelta(hours=1)
        )


def queries_of(client) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(reverse("admin:index")).status_code == 200
    return [query["sql"] for query in captured]


def test_the_page_costs_the_same_for_few_troubles_and_many(as_, ticking):
    client = as_("operator")
    everything(4)
    client.get(reverse("admin:index"))
    few = queries_of(client)
    everything(6)

    many = queries_of(client)

    assert len(many) == len(few) <= 50
    counting = [sql for sql in many if "COUNT(*)" in sql]
    assert all("LIMIT" in sql for sql in counting)


def test_an_open_page_asks_for_its_figures_alone(as_, ticking):
    a_request()
    client = as_("viewer")
    url = reverse("admin:index")

    page = client.get(url).content.decode()
    part = client.get(url, headers={"HX-Request": "true"}).content.decode()

    assert "<html" in page
    assert "<html" not in part
    for text in (page, part):
        assert text.count('id="overview"') == 1
        assert "every 10s [!document.hidden" in text
    assert part.strip().startswith("<div")


def test_an_open_page_of_someone_logged_out_meanwhile_loads_anew(as_, ticking):
    client = as_("viewer")
    client.logout()

    answer = client.get(reverse("admin:index"), headers={"HX-Request": "true"})

    assert answer.status_code == 200
    assert answer.headers["HX-Refresh"] == "true"
    assert client.get(reverse("admin:index")).status_code == 302


def test_every_tile_opens_a_list(as_, ticking):
    a_request(due_at=timezone.now())
    client = as_("viewer")

    for tile in overview.overview(client.get(reverse("admin:index")).wsgi_request, {})["tiles"]:
        assert client.get(tile.url).status_code == 200, tile.title


def test_an_empty_panel_leads_to_the_sandbox_while_there_is_one(as_):
    client = as_("operator")
    invitation = "Send a sample from its page"
    assert invitation not in client.get(reverse("admin:index")).content.decode()

    an_account()

    assert invitation in client.get(reverse("admin:index")).content.decode()


def test_who_opens_the_login_page_itself_comes_to_the_overview(client, django_user_model):
    django_user_model.objects.create_superuser("anna", password="a password")

    answer = client.post(reverse("admin:login"), {"username": "anna", "password": "a password"})

    assert answer["Location"] == reverse("admin:index")
