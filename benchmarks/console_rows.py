"""Fill a database with a million requests and all that belongs to them, in minutes: sets, never row by row.

``console`` calls ``fill`` before it measures. Each table is one INSERT … SELECT over a series of numbers, written
for both databases; a column that is not named gets its field's default, so that a new one needs nothing here.
The rows are told by their numbers alone, so two runs make the same: nine in ten have ended, some are due, at the
provider, in line, or not packed yet; one destination in ten is dead, and one batch holds a twentieth of it all.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.db import connection, transaction
from django.utils import timezone
from django_fsm_log.models import StateLog

from batching import models as ours
from benchmarks.console_sql import LINE, Size, Sql
from delivery.models import Attempt, DestinationHealth, Event, EventDelivery, Rejection, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

PROJECTS = ("search", "support", "evaluations", "catalogue", "research")
ACCOUNTS = ("openai-main", "openai-research", "openai-eu", "vllm-cluster")
MODELS = ("gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-4.1", "gpt-4.1-mini", "o4-mini")
PLACES = ("answers", "ranking", "tickets", "labels", "digest", "nightly", "audit", "archive")
PLACES_OF_PROJECT = 40
LANES = len(ACCOUNTS) * len(MODELS)
DEAD_TRIES = 3
_ANSWERED_AFTER_S = "(3000 - {0} %% 1500)"
"""Seconds from intake to the answer, as SQL over the request's number."""


def fill(size: Size) -> None:
    """Make everything, and tell the planner. The database has the tables and no request yet."""
    sql = Sql()
    _go_fast(sql)
    steps: tuple[Callable[[Size, Sql], None], ...] = (
        _few, _batches, _requests, _bodies, _attempts, _history, _around,
    )  # fmt: skip
    for step in steps:
        began = time.perf_counter()
        with transaction.atomic():
            step(size, sql)
        sys.stdout.write(f"{step.__name__.strip('_'):>10}: {time.perf_counter() - began:.0f} s\n")
        sys.stdout.flush()
    _tidy()


def _go_fast(sql: Sql) -> None:
    with connection.cursor() as cursor:
        if sql.is_postgresql:
            cursor.execute(
                "SET session_replication_role = replica"
            )  # no foreign keys: we are right
            cursor.execute("SET synchronous_commit = off")
            return
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.execute("PRAGMA cache_size = -500000")


def _tidy() -> None:
    """Gather statistics, and let sequences go on after the numbers given here."""
    models = [*ours.Request._meta.apps.get_models()]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), models):
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def _insert(model: type[Model], columns: dict[str, str], source: str) -> None:
    """Insert ``SELECT columns FROM source``; fields that are not named get their defaults."""
    given, params = dict(columns), []
    for field in model._meta.concrete_fields:
        if field.column not in given and not field.primary_key:
            given[field.column] = "%s"
            params.append(field.get_db_prep_save(field.get_default(), connection))
    names, values = ", ".join(f'"{name}"' for name in given), ", ".join(given.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({names}) SELECT {values} FROM {source}", params
        )


def _series(last: int, first: int = 1) -> str:
    """Return a source of the column n, from first to last."""
    if connection.vendor == "postgresql":
        return f"generate_series({first}, {last}) AS numbers(n)"
    return (
        f"(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers"
        f" WHERE n < {last}) SELECT n FROM numbers)"
    )


def _few(_size: Size, _sql: Sql) -> None:
    """Projects with keys, accounts with lanes, destinations with their health: by the ORM, there are few."""
    now = timezone.now()
    ours.Project.objects.all().delete()
    for number in range(1, len(PROJECTS) + 1):
        project = ours.Project.objects.create(pk=number, name=PROJECTS[number - 1])
        for turn in range(10):
            ours.ApiKey.issue(project, f"key {turn}")
    for number in range(1, len(ACCOUNTS) + 1):
        ours.Account.objects.create(
            pk=number,
            name=ACCOUNTS[number - 1],
            base_url="http://127.0.0.1:9/v1",
            max_batches_in_flight=3 if number == 2 else None,
        )
    for number in range(LANES):
        lane = ours.Lane.objects.create(
            pk=number + 1,
            account_id=1 + number % len(ACCOUNTS),
            model=MODELS[number // len(ACCOUNTS)],
            endpoint="/v1/responses",
            paused_at=now if number == 3 else None,
            pause_reason="by anna: the quota is being raised" if number == 3 else "",
        )
        ours.Turnaround.objects.create(lane=lane, p50_s=3_000, p90_s=9_000, batches=150)
    for number in range(len(PROJECTS) * PLACES_OF_PROJECT):
        _place(number, now)


def _place(number: int, now: object) -> None:
    name = f"{PLACES[number % len(PLACES)]}-{number}"
    place = ours.Destination.objects.create(
        pk=number + 1,
        project_id=1 + number // PLACES_OF_PROJECT,
        type="webhook",
        url=f"https://{name}.example/hook",
        name=name,
        paused_at=now if number % 50 == 7 else None,
        disabled_at=now if number % 50 == 9 else None,
        stop_reason={
            7: "by anna: the receiver moves house",
            9: "the receiver answered 410 Gone",
        }.get(number % 50, ""),
    )
    DestinationHealth.objects.create(
        destination=place,
        last_success_at=now,
        failures_in_row=12 if number % 40 == 3 else 0,
        last_failure="http status 503" if number % 40 == 3 else "",
        last_failure_at=now if number % 40 == 3 else None,
        latency_s=0.05 * (1 + number % 9),
        open_until=timezone.now() + timedelta(hours=1) if number % 40 == 3 else None,
        openings=1 if number % 40 == 3 else 0,
    )


def _last_of(batch: str, size: Size) -> str:
    """Return the number of a batch's last request, as SQL."""
    return f"({size.big} + ({batch} - 1) * {size.in_batch})"


def _lane(batch: str, last: str, size: Size) -> str:
    """Return the lane of a batch, as SQL; those in line stand in one, where rows are held."""
    lane = f"1 + {batch} %% {LANES}"
    if not size.is_held:
        return lane
    return (
        f"CASE WHEN {last} > {size.held} AND {last} <= {size.in_line} THEN {LINE} ELSE {lane} END"
    )


def _batches(size: Size, sql: Sql) -> None:
    last = _last_of("n", size)
    state = (
        f"CASE WHEN {last} <= {size.ended} THEN CASE WHEN n %% 20 < 13 THEN 'delivered'"
        " WHEN n %% 20 < 16 THEN 'partially_delivered' WHEN n %% 20 = 16 THEN 'delivery_failed'"
        " WHEN n %% 20 = 17 THEN 'expired' WHEN n %% 20 = 18 THEN 'cancelled' ELSE 'failed' END"
        f" WHEN {last} <= {size.due} THEN 'delivering' WHEN {last} <= {size.held} THEN 'processing'"
        f" WHEN {last} <= {size.in_line} THEN 'waiting_for_capacity' ELSE 'building' END"
    )
    created = sql.ago(f"({size.requests} - {last} + 1) * {size.span_s}.0 / {size.requests} + 3600")
    ended, held = f"{last} <= {size.due}", f"{last} <= {size.held}"
    many = f"(CASE WHEN n = 1 THEN {size.big} ELSE {size.in_batch} END)"
    columns = {
        "id": "n", "key": sql.key("bat"), "state": state, "lane_id": _lane("n", last, size),
        "created_at": created,
        "state_changed_at": f"CASE WHEN {last} <= {size.ended} THEN {sql.after(created, '3140')} ELSE {created} END",
        "create_started_at": f"CASE WHEN {held} THEN {created} END",
        "next_attempt_at": f"CASE WHEN {ended} THEN NULL ELSE {sql.due(size)} END",
        "request_count": many, "size_bytes": f"{many} * 700", "token_estimate": f"{many} * 900",
        "provider_batch_id": f"CASE WHEN {held} THEN {sql.text('batch_')} ELSE '' END",
        "provider_status": f"CASE WHEN {ended} THEN 'completed' WHEN {held} THEN 'in_progress' ELSE '' END",
        "provider_total": f"CASE WHEN {held} THEN {many} END",
        "provider_completed": f"CASE WHEN {held} THEN {many} / 2 END",
        "input_tokens": f"CASE WHEN {ended} THEN {many} * 800 END",
        "output_tokens": f"CASE WHEN {ended} THEN {many} * 300 END",
        "cost_nano": f"CASE WHEN {ended} THEN CAST({many} AS bigint) * 125000 END",
        "answered_count": f"CASE WHEN {ended} THEN {many} * 19 / 20 END",
        "failed_count": f"CASE WHEN {ended} THEN {many} / 20 END",
        "rank": "n", "priority": "n %% 7 - 3",
        "wait_reason": f"CASE WHEN {last} > {size.held} AND {last} <= {size.in_line}"
        " THEN '3 of 3 batches of the account are at the provider' ELSE '' END",
        "waiting_since": f"CASE WHEN {last} > {size.held} AND {last} <= {size.in_line} THEN {created} END",
        "paused_at": f"CASE WHEN {last} > {size.held} AND n %% 9 = 0 THEN {created} END",
    }  # fmt: skip
    _insert(ours.Batch, columns, _series(size.batches))


def _requests(size: Size, sql: Sql) -> None:
    """Insert submissions, then the requests themselves."""
    submissions = max(1, size.requests // 500)
    _insert(
        ours.Submission,
        {
            "id": "n", "key": sql.key("sub"), "project_id": "1", "kind": "'upload'",
            "created_at": sql.ago(f"({submissions} - n) * {size.span_s}.0 / {submissions}"),
            "finished_at": sql.ago(f"({submissions} - n) * {size.span_s}.0 / {submissions}"), "accepted": "500",
        },
        _series(submissions),
    )  # fmt: skip
    batch = (
        f"CASE WHEN n <= {size.big} THEN 1 WHEN n <= {size.packed}"
        f" THEN 2 + (n - {size.big} - 1) / {size.in_batch} END"
    )
    project = f"(CASE WHEN n %% 10 < 7 THEN 1 ELSE 2 + n %% {len(PROJECTS) - 1} END)"
    place = f"CASE WHEN n %% 8 > 0 THEN ({project} - 1) * {PLACES_OF_PROJECT} + 1 + n %% {PLACES_OF_PROJECT} END"
    source = (
        f"(SELECT n, {batch} AS batch, {project} AS project, {place} AS place, (n %% 1000 * 919) %% 1000 AS m"
        f" FROM {_series(size.requests)}) AS rows"
    )
    _insert(ours.Request, _request_columns(size, sql), source)


def _request_columns(size: Size, sql: Sql) -> dict[str, str]:
    created = sql.ago(f"({size.requests} - n) * {size.span_s}.0 / {size.requests}")
    later = sql.ago(
        f"({size.requests} - n) * {size.span_s}.0 / {size.requests} - {_ANSWERED_AFTER_S.format('n')}"
    )
    dead = f"n <= {size.ended} AND place IS NOT NULL AND m >= 900 AND m < 950"
    bad = f"n <= {size.ended} AND m >= 950"
    state = (
        f"CASE WHEN {dead} THEN 'delivery_failed' WHEN {bad} THEN CASE WHEN m < 980 THEN 'failed'"
        " WHEN m < 990 THEN 'expired' ELSE 'cancelled' END"
        f" WHEN n <= {size.ended} AND place IS NOT NULL THEN 'delivered' WHEN n <= {size.due} THEN 'processed'"
        f" WHEN n <= {size.held} THEN 'processing' ELSE 'pending' END"
    )
    is_due = f"n > {size.ended} AND n <= {size.due} AND place IS NOT NULL"
    return {
        "id": "n", "key": sql.key("req"), "state": state, "state_changed_at": later,
        "project_id": "project", "custom_id": sql.text("row-"), "fingerprint": "''",
        "lane_id": _lane("COALESCE(batch, n)", "n", size), "batch_id": "batch", "submission_id": f"1 + n %% {max(1, size.requests // 500)}",
        "destination_id": "place", "created_at": created, "seal_by": sql.due(size) if size.is_held else created,
        "size_bytes": "700", "token_estimate": "900",
        "settled_at": f"CASE WHEN n <= {size.due} THEN {later} END",
        "error_code": f"CASE WHEN {bad} AND m < 980 THEN 'rate_limit_exceeded' ELSE '' END",
        "cost_nano": f"CASE WHEN n <= {size.due} THEN 125000 END",
        "due_at": f"CASE WHEN {is_due} THEN {sql.due(size)} END",
        "tries": f"CASE WHEN {dead} THEN {DEAD_TRIES} ELSE 0 END",
        "delivered_at": f"CASE WHEN n <= {size.ended} AND place IS NOT NULL AND NOT ({dead}) THEN {later} END",
        "dead_at": f"CASE WHEN {dead} THEN {later} END",
        "dead_cause": f"CASE WHEN NOT ({dead}) THEN NULL WHEN n %% 5 < 3 THEN 'http_status:' || (500 + n %% 4)"
        " WHEN n %% 5 = 3 THEN 'timeout' ELSE 'connection_error' END",
    }  # fmt: skip


def _bodies(size: Size, sql: Sql) -> None:
    body = sql.binary('\'{"model": "gpt-5-mini", "input": "Say \' || n || \'"}\'')
    _insert(
        ours.RequestBody,
        {"request_id": "n", "body": body, "metadata": sql.binary("'{}'")},
        _series(size.requests),
    )
    line = sql.binary(
        '\'{"id": "x", "response": {"status_code": 200, "body": {"output": "\' || n || \'"}}}\''
    )
    columns = {
        "request_id": "n", "attempt": "1", "line": line, "status_code": "200", "batch_id": "NULL",
        "input_tokens": "800", "cached_tokens": "0", "output_tokens": "300", "reasoning_tokens": "0",
    }  # fmt: skip
    _insert(ours.Answer, columns, _series(size.due))


def _attempts(size: Size, sql: Sql) -> None:
    """Insert three for each dead letter, and one for as many delivered ones as are left."""
    requests = ours.Request._meta.db_table
    dead = (
        f"(SELECT r.id, r.destination_id, r.dead_at AS at, t.n FROM {requests} AS r, {_series(DEAD_TRIES)} AS t"
        f" WHERE r.dead_at IS NOT NULL ORDER BY r.id, t.n LIMIT {size.attempts}) AS rows"
    )
    if sql.is_postgresql:
        dead = dead.replace("AS numbers(n) AS t", "AS t(n)")
    columns = {
        "request_id": "id", "destination_id": "destination_id", "number": "n",
        "outcome": "CASE WHEN id %% 5 < 3 THEN 'http_status' WHEN id %% 5 = 3 THEN 'timeout' ELSE 'connection_error' END",
        "status": "CASE WHEN id %% 5 < 3 THEN 500 + id %% 4 END", "answer": "'no'",
        "duration_s": "0.05 * (1 + id %% 9)", "ended_at": sql.after("at", f"(n - {DEAD_TRIES}) * 600"),
    }  # fmt: skip
    _insert(Attempt, columns, dead)
    left = size.attempts - Attempt.objects.count()
    delivered = (
        f"(SELECT id, destination_id, delivered_at AS at, {DEAD_TRIES} AS n FROM {requests} WHERE delivered_at IS NOT NULL"
        f" ORDER BY id DESC LIMIT {left}) AS rows"
    )
    _insert(
        Attempt,
        {**columns, "number": "1", "answer": "''", "outcome": "'delivered'", "status": "200"},
        delivered,
    )


_BATCH_STEPS = (
    ("building", "seal", "uploading", 590), ("uploading", "uploaded", "uploaded", 594),
    ("uploaded", "wait", "waiting_for_capacity", 595), ("waiting_for_capacity", "submit", "submitting", 606),
    ("submitting", "accepted", "processing", 607), ("processing", "complete", "completed", 3100),
    ("completed", "download", "downloading", 3101), ("downloading", "settled", "ready_to_deliver", 3110), ("ready_to_deliver", "deliver", "delivering", 3111),
    ("delivering", "delivered", "state", 3140),
)  # fmt: skip
"""From, transition, to, and seconds since the batch was opened."""
_REQUEST_STEPS = (
    ("", "accept", "pending", 0), ("pending", "submitted", "processing", 607), ("processing", "answered", "processed", _ANSWERED_AFTER_S.format("id")),
    ("processed", "deliver", "delivering", _ANSWERED_AFTER_S.format("id") + " + 1"),
    ("delivering", "delivered", "state", _ANSWERED_AFTER_S.format("id") + " + 2"),
)  # fmt: skip


def _history(size: Size, sql: Sql) -> None:
    """Insert what the machine wrote down: of each request that ended, and of each batch."""
    for model, last, steps in (
        (ours.Batch, 1 + (size.ended - size.big) // size.in_batch, _BATCH_STEPS),
        (ours.Request, size.ended, _REQUEST_STEPS[-size.history :] if size.history else ()),
    ):
        kind = ContentType.objects.get_for_model(model).pk
        for source, transition, target, seconds in steps:
            columns = {
                "content_type_id": str(kind), "object_id": "id", "source_state": f"'{source}'" if source else "NULL",
                "state": "state" if target == "state" else f"'{target}'", "transition": f"'{transition}'",
                "timestamp": sql.after("created_at", str(seconds)),
                "by_id": "NULL", "description": "'as always [by clock]'",
            }  # fmt: skip
            upto = size.requests if transition == "accept" else last
            _insert(StateLog, columns, f"{model._meta.db_table} WHERE id <= {upto} ORDER BY id")


def _around(size: Size, sql: Sql) -> None:
    """Insert what an old installation has beside: audit, files, events, replays, refused messages."""
    many = max(10, size.requests // 50)
    age = sql.ago(f"({many} - n) * 60")
    key = {"id": "n", "project_id": f"1 + n %% {len(PROJECTS)}", "created_at": age}
    _insert(
        ours.AuditEntry,
        {"at": age, "actor": sql.text("user-", "n %% 9"), "action": "'request.redeliver'",
         "object_type": "'request'", "object_key": sql.key("req"), "reason": "'seeded'"},
        _series(many),
    )  # fmt: skip
    _insert(
        ours.ClientFile,
        {**key, "key": sql.key("file"), "purpose": "'batch'", "filename": sql.text("file-"),
         "size_bytes": "n * 1000"},
        _series(many),
    )  # fmt: skip
    event = {**key, "key": sql.key("evt"), "type": "'batch.completed'", "subject": sql.key("bat"),
             "occurred_at": age, "payload": sql.binary("'{}'")}  # fmt: skip
    _insert(Event, event, _series(many))
    _insert(
        EventDelivery,
        {"id": "n", "event_id": "n", "destination_id": f"1 + n %% {PLACES_OF_PROJECT}"},
        _series(many),
    )
    replay = {**key, "key": sql.key("rpl"), "who": "'user anna'", "per_second": "50",
              "state": "'done'", "matched": "100", "done": "100"}  # fmt: skip
    _insert(Replay, replay, _series(200))
    _insert(
        Rejection,
        {"id": "n", "queue": "'requests'", "project_name": "'search'", "code": "'validation_error'",
         "detail": "'no model'", "faults": "'no model'", "size_bytes": "100",
         "sha256": sql.key("sha"), "beginning": "'{}'"},
        _series(many),
    )  # fmt: skip
