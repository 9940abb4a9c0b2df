"""The hot queries find their rows by the index that was made for them, on either database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from batching import closing, packing
from batching.admin import standings
from batching.admin.batch_filters import QuickFilter
from batching.models import Batch, Destination, Request
from delivery import due, standing
from delivery.results import settled_after
from tests.batching.rows import NOW, a_batch, a_destination, a_lane, a_project

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

LANES, BATCHES, ROWS = 3, 3_000, 6_000


@pytest.fixture(scope="module")
def lane(django_db_setup, django_db_blocker):
    """One of the lanes of a well-filled database, which is made once and rolled back at the end."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield seeded()
        transaction.set_rollback(True)


def seeded():
    """Make several thousand requests and some hundred batches, most of them long done."""
    project, lanes = a_project(), [a_lane(f"model-{n}") for n in range(LANES)]
    places = [a_destination() for _ in range(4)]
    batches = Batch.objects.bulk_create(
        Batch(lane=lanes[n % LANES], state="delivered", next_attempt_at=None)
        for n in range(BATCHES)
    )
    Request.objects.bulk_create(
        Request(
            project=project,
            custom_id=f"row-{n}",
            fingerprint="f" * 64,
            lane=lanes[n % LANES],
            batch=batches[n % 300],
            destination=places[n % 4],
            state="delivered",
            seal_by=NOW,
            settled_at=NOW + timedelta(seconds=n),
            size_bytes=100,
            token_estimate=10,
        )
        for n in range(ROWS)
    )
    fresh = Request.objects.filter(pk__in=Request.objects.order_by("-pk").values("pk")[:40])
    fresh.update(state="pending", batch=None, settled_at=None)
    Request.objects.filter(custom_id__endswith="77").update(due_at=NOW, state="processed")
    a_batch(lane=lanes[0], state="processing", next_attempt_at=NOW)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return lanes[0]


def plan_of(sql: str, params) -> str:
    prefix = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        cursor.execute(f"{prefix} {sql}", params)
        return "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())


def project_requests():
    return Request.objects.filter(project=a_project())


def middle() -> int:
    return Request.objects.order_by("pk").values_list("pk", flat=True)[ROWS // 2]


def quickly(name: str):
    """The batches that a quick filter means, as its list asks for them."""
    (quick,) = [quick for quick in QuickFilter.quicks if quick.name == name]
    found = Batch.objects.filter(quick.which(None, NOW)).order_by()
    return Batch.objects.filter(pk__in=found.values("pk"))


QUERIES = {
    "unpacked-exists": (
        lambda lane: Request.objects.unpacked().filter(lane=lane)[:1],
        "request_unpacked",
    ),
    "unpacked-in-order": (
        lambda lane: Request.objects.unpacked().filter(lane=lane).order_by("-priority", "pk")[:9],
        "request_unpacked",
    ),
    "near-deadlines-of-a-lane": (
        lambda lane: Request.objects.with_deadline().filter(lane=lane, deliver_by__lte=NOW)[:9],
        ("request_deadline", "request_unpacked"),
    ),
    "window-of-any-filter": (
        lambda lane: Request.objects.filter(
            lane=lane, destination__isnull=False, pk__gte=middle() - 500, pk__lte=middle()
        ).order_by("-pk")[:51],
        ("batching_request_pkey", "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    ),
    "page-of-a-submission": (
        lambda _: Request.objects.filter(submission_id__in=[7]).order_by("-pk")[:51],
        ("request_submission",),
    ),
    "ends-of-a-submission": (
        lambda _: Request.objects.in_submission_order(7).reverse()[:1],
        ("request_submission",),
    ),
    "page-of-a-batch": (
        lambda _: Request.objects.filter(batch=Batch.objects.first()).order_by("-pk")[:51],
        "request_batch",
    ),
    "due-of-a-destination": (
        lambda _: Request.objects.due(NOW).filter(destination=Destination.objects.first())[:50],
        "request_due",
    ),
    "due-batches": (lambda _: Batch.objects.due(NOW, "processing", "cancelling"), "batch_due"),
    "held-of-a-lane": (
        lambda lane: Batch.objects.held_by_provider().filter(lane=lane),
        ("batch_lane_state", "batch_due", "batch_state"),
    ),
    "pending-of-a-batch": (
        lambda _: Request.objects.filter(batch=Batch.objects.first(), state="pending").order_by(
            "pk"
        ),
        "request_batch",
    ),
    "counts-of-a-batch": (
        lambda _: Request.objects.filter(batch=Batch.objects.first()).values("state"),
        "request_batch",
    ),
    "page-of-a-project": (
        lambda _: project_requests().filter(pk__lt=middle()).order_by("-pk")[:50],
        ("request_project", "batching_request_pkey", "PRIMARY KEY"),
    ),
    "page-of-a-state": (
        lambda _: Request.objects.filter(state="processed").order_by("-pk")[:50],
        "request_state",
    ),
    "page-of-batches": (
        lambda _: Batch.objects.filter(state="processing").order_by("-pk")[:50],
        ("batch_state", "batch_due"),
    ),
    "results-to-pull": (
        lambda _: project_requests().filter(settled_at__gt=NOW).order_by("settled_at", "pk")[:50],
        "request_settled",
    ),
    "results-to-lease": (
        lambda _: settled_after(
            a_project(),
            (NOW + timedelta(seconds=ROWS - 200), middle()),
            now=NOW + timedelta(days=1),
        ).filter(destination__isnull=True)[:50],
        "request_settled",
    ),
    "dead-letters": (lambda _: standing.dead_letters()[:50], "request_dead"),
    "dead-letters-to-count": (
        lambda _: standing.dead_letters().order_by()[:50],
        "request_dead",
    ),
    "paused-batches": (
        lambda _: standings.paused_batches(Batch.objects.order_by("pk"), NOW)[:4],
        ("batch_state", "batch_due"),
    ),
    "failed-batches": (
        lambda _: Batch.objects.filter(state="failed").order_by("pk")[:4],
        ("batch_state", "batch_due"),
    ),
    "where-unanswered-requests-went": (
        lambda _: Request.objects.filter(came_from=7).order_by().values_list("batch_id")[:50],
        "request_came_from",
    ),
    "quick-filter-active": (
        lambda _: quickly("active").order_by("-pk")[:21],
        ("batch_state", "batch_due"),
    ),
    "quick-filter-waiting": (
        lambda _: quickly("waiting").order_by("-pk")[:21],
        ("batch_state", "batch_due"),
    ),
    "quick-filter-expiring": (
        lambda _: quickly("expiring").order_by("-pk")[:21],
        ("batch_state", "batch_due", "batch_lane_state"),
    ),
    "one-by-custom-id": (
        lambda _: project_requests().filter(custom_id="row-17"),
        ("request_custom_id", "(project_id=? AND custom_id=?)"),
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_hot_query_uses_its_index(lane, name):
    make, index = QUERIES[name]

    plan = plan_of(*make(lane).query.sql_with_params())

    indexes = (index,) if isinstance(index, str) else index
    assert any(one in plan for one in indexes), plan
    assert "Seq Scan on batching_request" not in plan, plan


def statements(work) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        work()
    return [
        q["sql"] for q in captured if q["sql"].lstrip().startswith(("SELECT", "UPDATE", "WITH"))
    ]


def test_packing_takes_by_its_index(lane):
    plan = plan_of(
        packing._TAKE.format(request=Request._meta.db_table, lock="", near=""),
        [Batch.objects.first().pk, lane.pk, 50, 10**6, 10**6],
    )

    assert "request_unpacked" in plan


@pytest.mark.parametrize(
    "work",
    [lambda: due.ready_destinations(NOW), lambda: closing.tally(Batch.objects.first())],
    ids=["open-destinations", "tally"],
)
def test_a_phase_scans_no_whole_table(lane, work):
    for sql in statements(work):
        plan = plan_of(sql.replace("%", "%%"), [])
        assert "Seq Scan on batching_request" not in plan, plan
        assert "SCAN batching_request\n" not in plan + "\n", plan
