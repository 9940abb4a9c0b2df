"""Workers and queues: who lives, who was lost, what waits where, whether the clock is on time, how big it all is."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from celery import current_app
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from batching.admin import broker_looks, concerns, workers_page
from batching.api.memory import forget_all
from batching.models import Beat, Pulse
from tests.admin.conftest import ROLES

LOOK = {"viewer", "operator", "admin", "root"}


@pytest.fixture(autouse=True)
def nothing_remembered():
    forget_all()


def a_beat(kind="worker", host="one", pid=1, *, seen_s: float = 5, up_s: float = 3_600) -> Beat:
    now = timezone.now()
    return Beat.objects.create(
        kind=kind, host=host, pid=pid, version="0.1.0", memory_bytes=10**8,
        seen_at=now - timedelta(seconds=seen_s), started_at=now - timedelta(seconds=up_s),
    )  # fmt: skip


def shown() -> dict[tuple[str, int], str]:
    found = workers_page.processes(timezone.now())
    return {(one.beat.host, one.beat.pid): one.word for one in found}


@pytest.mark.parametrize("role", ROLES)
def test_the_page_and_its_parts_open_for_those_who_may_look(as_, role):
    client = as_(role)

    found = {client.get(reverse(name)).status_code for name in ("workers", "queues", "database")}

    assert found == {200 if role in LOOK else 403}


@pytest.mark.django_db
def test_a_process_that_gives_no_sign_is_lost_and_stands_first():
    a_beat(pid=1)
    a_beat(pid=2, seen_s=200)

    assert list(shown().items()) == [(("one", 2), "lost"), (("one", 1), "alive")]


@pytest.mark.django_db
def test_a_process_that_was_followed_by_another_of_its_kind_and_host_is_not_missed():
    a_beat(pid=1, seen_s=200)
    a_beat(pid=2, up_s=195)
    a_beat(pid=3, host="two", seen_s=200)
    a_beat("web", pid=4, seen_s=200)

    assert shown() == {("one", 2): "alive", ("two", 3): "lost", ("one", 4): "lost"}


@pytest.mark.django_db
def test_a_lost_process_needs_a_person_for_a_day():
    a_beat(pid=7, host="three", seen_s=200)
    now = timezone.now()

    [concern] = concerns._processes(now)

    assert concern.happened == "Process worker 7 on three gives no sign of life any more."
    assert Beat.objects.prune(now) == 0
    assert Beat.objects.prune(now + timedelta(days=1)) == 1


@pytest.mark.django_db
def test_followed_processes_are_forgotten_at_once():
    a_beat(pid=1, seen_s=200)
    a_beat(pid=2, up_s=195)

    assert Beat.objects.prune(timezone.now()) == 1
    assert shown() == {("one", 2): "alive"}


@pytest.mark.django_db
def test_a_line_of_the_clock_says_by_how_much_it_is_late():
    now = timezone.now()
    for line in PeriodicTask.objects.all():
        Pulse.objects.create(name=line.task.rsplit(".", 1)[-1], began_at=now)
    Pulse.objects.filter(name="send").update(began_at=now - timedelta(minutes=10))
    PeriodicTask.objects.filter(name="batcher: poll").update(enabled=False)

    first, *rest = workers_page.ticks(now)

    assert (first.line.name, first.word, first.lag) == ("batcher: send", "late", "9 min 58 s")
    words = {tick.line.name: tick.word for tick in rest}
    assert words.pop("batcher: poll") == "off"
    assert set(words.values()) == {"on time"}


def test_the_embedded_brokers_folders_are_counted(as_, settings, tmp_path, monkeypatch):
    settings.CELERY_BROKER_URL = "embedded://"
    monkeypatch.setitem(current_app.conf.broker_transport_options, "folder", str(tmp_path))
    ago = time.time_ns() - 60 * 10**9
    for folder, name in (("batcher.delivery", f"{ago:020d}.a"), ("batcher.delivery", f"{time.time_ns():020d}.b"), ("claimed/batcher.uploads", f"{ago:020d}.c")):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch()

    page = as_("viewer").get(reverse("queues"), headers={"HX-Request": "true"})

    queues = {queue.name: queue for queue in page.context["brokers"][0].queues}
    assert queues["batcher.delivery"].waiting == 2
    assert 59 < (timezone.now() - queues["batcher.delivery"].oldest_at).total_seconds() < 90
    assert (queues["batcher.uploads"].waiting, queues["batcher.uploads"].taken) == (0, 1)


@pytest.mark.parametrize("url", ["amqp://guest:secret@127.0.0.1:9/", "redis://:secret@127.0.0.1:9/0"])  # fmt: skip
def test_a_broker_that_does_not_answer_is_told_without_its_password(as_, settings, url):
    settings.CELERY_BROKER_URL = url

    began = time.monotonic()
    page = as_("viewer").get(reverse("queues")).content.decode()

    assert "does not answer" in page
    assert "127.0.0.1:9" in page
    assert "secret" not in page
    assert time.monotonic() - began < 10


@pytest.mark.service
def test_queues_of_rabbitmq_are_counted_and_missing_ones_told(rabbitmq_url):
    look = broker_looks._on_rabbitmq(rabbitmq_url, ["no-such-queue", "amq.none"])

    assert [queue.waiting for queue in look.queues] == [None, None]
    assert "no-such-queue" in look.queues[0].trouble


def test_the_database_tells_its_size_and_tables(as_):
    page = as_("viewer").get(reverse("database"))

    database = page.context["database"]
    assert database.engine.startswith("PostgreSQL" if connection.vendor == "postgresql" else "SQLite")  # fmt: skip
    assert dict(database.facts)["Size"].endswith(("kB", "MB", "GB"))
    assert "batching_request" in page.content.decode() or database.has_sizes
    assert database.tables


def test_the_page_costs_the_same_for_many_processes(as_):
    client = as_("viewer")
    a_beat()
    client.get(reverse("workers"))

    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert client.get(reverse("workers")).status_code == 200
        return len(asked)

    few = queries()
    for pid in range(10, 40):
        a_beat(pid=pid, seen_s=200 if pid % 2 else 1)

    assert queries() == few <= 12


def test_the_part_that_renews_itself_comes_alone(as_):
    client = as_("viewer")

    part = client.get(reverse("workers"), headers={"HX-Request": "true"}).content.decode()

    assert part.strip().startswith('<div id="workers-live"')
    assert "<html" not in part
    assert "No process has given a sign of life yet" in part
