"""How we are: up, ready, and in numbers.

`/health` says that the process answers, and nothing more. `/ready` asks everything that work needs, and names
what is missing. `/metrics` counts what is open, never what has piled up, so that it costs the same however
long we have run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from logging import getLogger
from typing import Final

import msgspec
from celery import current_app
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Count, Max, Min
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from msgspec import Struct

from batching.api.auth import Caller
from batching.api.memory import Memory
from batching.api.metric_lines import metric, of_tallies
from batching.api.operations import Answer, operation, render
from batching.lifecycle import RequestState
from batching.models import Batch, Pulse, Request
from batching.models.projects import Scope
from delivery.models import Attempt, IntakeStatus

logger = getLogger(__name__)

STALE_AFTER: Final = timedelta(seconds=120)
"""Without a task begun for this long, the clock or the worker stands still."""
_OPEN: Final = (
    RequestState.PENDING,
    RequestState.PROCESSING,
    RequestState.PROCESSED,
    RequestState.DELIVERING,
    RequestState.DELIVERY_FAILED,
)
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_broker: Memory[str] = Memory(seconds=5)
_metrics: Memory[bytes] = Memory(seconds=5)


class Health(Struct, frozen=True):
    """The process answers."""

    status: str


class Part(Struct, frozen=True):
    """One thing that work needs."""

    is_ready: bool
    detail: str


class Readiness(Struct, frozen=True):
    """Whether work gets done."""

    status: str
    """`ready` or `not_ready`."""
    parts: dict[str, Part]
    """database, broker, and progress: the newest tick of the clock that a worker took up.

    With a RabbitMQ input queue also intake: how its consumer is. That one makes nobody unready: HTTP is taken
    all the same.
    """


@operation(scope=None, answers={200: Answer("It is up.", Health)})
def health(request: HttpRequest) -> HttpResponse:
    """Say that the web server answers."""
    return render(msgspec.json.encode(Health(status="ok")))


@operation(
    scope=None,
    answers={
        200: Answer("Work gets done.", Readiness),
        503: Answer("Something is missing; `parts` says what.", Readiness),
    },
)
def ready(request: HttpRequest) -> HttpResponse:
    """Say whether work gets done: database, broker, clock and worker."""
    checks: dict[str, Callable[[], str]] = {
        "database": _database_trouble,
        "broker": lambda: _broker.get("broker", _broker_trouble),
        "progress": _progress_trouble,
    }
    troubles = {name: check() for name, check in checks.items()}
    parts = {
        name: Part(is_ready=not trouble, detail=trouble or "ok")
        for name, trouble in troubles.items()
    }
    is_ready = not any(troubles.values())
    if settings.RABBITMQ_INPUT_QUEUE:
        parts["intake"] = _intake(settings.RABBITMQ_INPUT_QUEUE)
    answer = Readiness(status="ready" if is_ready else "not_ready", parts=parts)
    return render(msgspec.json.encode(answer), 200 if is_ready else 503)


def _database_trouble() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("database does not answer", exc_info=True)
        return "does not answer"
    return ""


def _broker_trouble() -> str:
    try:
        with current_app.connection_for_write(connect_timeout=2) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except (OSError, BrokerError) as problem:
        logger.warning("broker does not answer", extra={"error": type(problem).__name__})
        return "does not answer"
    return ""


def _progress_trouble() -> str:
    try:
        newest = Pulse.objects.aggregate(at=Max("began_at"))["at"]
    except DatabaseError:
        return "unknown while the database does not answer"
    if newest is None:
        return "no task has begun yet: are clock and worker running?"
    age = timezone.now() - newest
    if age > STALE_AFTER:
        return f"no task has begun for {age.total_seconds():.0f} s: are clock and worker running?"
    return ""


def _intake(queue: str) -> Part:
    """Say how the consumer of the input queue is, in its own words."""
    try:
        status = IntakeStatus.objects.filter(queue=queue).first()
    except DatabaseError:
        return Part(is_ready=False, detail="unknown while the database does not answer")
    if status is None:
        return Part(is_ready=False, detail="it has not begun yet: is it running?")
    age = timezone.now() - status.seen_at
    if age > STALE_AFTER:
        detail = f"no sign of life for {age.total_seconds():.0f} s: is it running?"
        return Part(is_ready=False, detail=detail)
    is_well = status.state in (IntakeStatus.State.CONSUMING, IntakeStatus.State.PAUSED)
    return Part(is_ready=is_well, detail=f"{status.state}: {status.detail}".removesuffix(": "))


@operation(
    scope=Scope.READ,
    answers={200: Answer("Prometheus text format.", media_type="text/plain")},
)
def metrics(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Count what is open, for Prometheus.

    Figures of the whole installation, five seconds old at most.
    """
    return HttpResponse(_metrics.get("all", _measure), content_type=_METRICS_TYPE)


def _measure() -> bytes:
    return "".join(f"{line}\n" for line in _metric_lines()).encode()


def _metric_lines() -> Iterator[str]:
    now = timezone.now()
    open_requests = Request.objects.filter(state__in=_OPEN).order_by().values_list("state")
    counted = dict(open_requests.annotate(count=Count("pk")))
    yield from metric(
        "batcher_requests", "gauge", "Requests that are not done, by state.",
        {f'{{state="{state}"}}': counted.get(str(state), 0) for state in _OPEN},
    )  # fmt: skip
    batches = dict(Batch.objects.order_by().values_list("state").annotate(count=Count("pk")))
    yield from metric(
        "batcher_batches", "gauge", "Batches, by state.",
        {f'{{state="{state}"}}': count for state, count in sorted(batches.items())},
    )  # fmt: skip
    due = Request.objects.due(now).order_by().aggregate(count=Count("pk"), oldest=Min("due_at"))
    yield from metric("batcher_deliveries_due", "gauge", "Results to be sent now.", due["count"])
    age = (now - due["oldest"]).total_seconds() if due["oldest"] else 0
    about = "Seconds that the longest due result has waited."
    yield from metric("batcher_delivery_oldest_due_seconds", "gauge", about, round(age, 3))
    # Ids are handed out one by one: the newest one counts all there ever were without reading them.
    for model, name, about in (
        (Request, "batcher_requests_total", "Requests ever stored."),
        (Attempt, "batcher_delivery_attempts_total", "Tries at delivery ever made."),
    ):
        newest = model._default_manager.aggregate(newest=Max("pk"))["newest"]
        yield from metric(name, "counter", about, newest or 0)
    yield from of_tallies(now)
