"""Up, ready, and in numbers."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from celery import current_app
from django.utils import timezone

from batching.models import Pulse, Request, Tally
from batching.models.tallies import EPOCH
from delivery.models import IntakeStatus
from tests.api.test_reads import send


@pytest.fixture
def ticking(db):
    Pulse.objects.create(name="poll", began_at=timezone.now() - timedelta(hours=1))
    return Pulse.objects.create(name="pack", began_at=timezone.now())


def not_ready(answer):
    """Return the names of the parts that are not ready."""
    parts = answer.json()["parts"]
    assert set(parts) == {"database", "broker", "progress"}
    return {name for name, part in parts.items() if not part["is_ready"]}


def test_health_needs_nothing(anonymous, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = anonymous.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_when_everything_answers(anonymous, ticking):
    answer = anonymous.get("/ready")

    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert not_ready(answer) == set()


def test_not_ready_before_the_first_tick(anonymous):
    answer = anonymous.get("/ready")

    assert (answer.status_code, not_ready(answer)) == (503, {"progress"})


def test_not_ready_when_the_clock_stands_still(anonymous, ticking):
    Pulse.objects.update(began_at=timezone.now() - timedelta(minutes=3))

    answer = anonymous.get("/ready")

    assert (answer.status_code, not_ready(answer)) == (503, {"progress"})
    assert "begun for 18" in answer.json()["parts"]["progress"]["detail"]


def test_not_ready_without_its_broker(anonymous, ticking, monkeypatch):
    real = current_app.connection_for_write
    monkeypatch.setattr(
        current_app,
        "connection_for_write",
        lambda **how: real("amqp://guest:guest@127.0.0.1:1//", **how),
    )

    answer = anonymous.get("/ready")

    assert (answer.status_code, not_ready(answer)) == (503, {"broker"})
    assert b"guest" not in answer.content


def test_metrics_count_what_is_open(api):
    send(api, "a", "b", "c")
    send(api, "d", delivery_config={"type": "webhook", "webhook_url": "http://a/b"})
    Request.objects.filter(custom_id="d").update(due_at=timezone.now() - timedelta(seconds=90))

    answer = api.get("/metrics")

    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    values = dict(
        line.rsplit(" ", 1) for line in answer.content.decode().splitlines() if line[0] != "#"
    )
    assert values['batcher_requests{state="pending"}'] == "4"
    assert values['batcher_requests{state="delivery_failed"}'] == "0"
    assert values["batcher_deliveries_due"] == "1"
    assert float(values["batcher_delivery_oldest_due_seconds"]) >= 90
    assert int(values["batcher_requests_total"]) >= 4


def test_metrics_count_what_the_charts_show(api):
    tallies = {
        ("moved", ">pending"): 7, ("moved", "pending>processing"): 5, ("tried", "delivered"): 3,
        ("tried", "http_status:503"): 2, ("ended", 'failed:a "b"'): 1, ("spent", "cost"): 1_500_000_000,
        ("turnaround", "00"): 1, ("turnaround", "02"): 2,
    }  # fmt: skip
    for (measure, name), count in tallies.items():
        Tally.objects.create(width_s=0, began_at=EPOCH, measure=measure, name=name, count=count)

    told = api.get("/metrics").content.decode().splitlines()

    assert {
        "batcher_requests_accepted_total 7",
        "batcher_results_delivered_total 3",
        'batcher_delivery_attempts_by_outcome_total{outcome="http_status:503"} 2',
        r'batcher_requests_ended_badly_total{state="failed",error="a \"b\""} 1',
        "batcher_spent_dollars_total 1.5",
        'batcher_turnaround_seconds_bucket{le="1"} 1',
        'batcher_turnaround_seconds_bucket{le="2.25"} 3',
        "batcher_turnaround_seconds_count 3",
    } <= set(told)


def test_metrics_cost_the_same_for_all(api, django_assert_max_num_queries):
    api.get("/api/requests")

    with django_assert_max_num_queries(7):
        api.get("/metrics")
        api.get("/metrics")


@pytest.mark.parametrize(
    ("state", "seconds_ago", "is_well", "detail"),
    [
        ("consuming", 1, True, "consuming: at it"),
        ("paused", 1, True, "paused: at it"),
        ("queue_missing", 1, False, "queue_missing: at it"),
        ("consuming", 300, False, "no sign of life for 300 s: is it running?"),
        (None, 0, False, "it has not begun yet: is it running?"),
    ],
    ids=["consuming", "paused", "no-queue", "silent", "never"],
)
def test_ready_tells_of_the_intake_and_needs_it_not(
    anonymous, ticking, settings, state, seconds_ago, is_well, detail
):
    settings.RABBITMQ_INPUT_QUEUE = "in"
    seen = timezone.now() - timedelta(seconds=seconds_ago)
    if state:
        IntakeStatus.objects.create(
            queue="in", state=state, detail="at it", since=seen, seen_at=seen
        )

    answer = anonymous.get("/ready")

    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    part = answer.json()["parts"]["intake"]
    assert (part["is_ready"], re.sub(r"\b30[0-9] s", "300 s", part["detail"])) == (is_well, detail)
