"""Rows for tests, each with what it needs, in whatever state."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django_fsm_log.models import StateLog

from batching.models import (
    Account,
    Answer,
    Batch,
    Destination,
    Lane,
    Project,
    Request,
    RequestBody,
)
from batching.providers.base import Source
from batching.wire import Line

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
_count = itertools.count(1)


def a_project(name: str = "default") -> Project:
    return Project.objects.get_or_create(name=name)[0]


def an_account(name: str = "sandbox", **fields) -> Account:
    defaults = {"kind": "sandbox", "base_url": "http://127.0.0.1:9/v1", "api_key": "test"} | fields
    return Account.objects.get_or_create(name=name, defaults=defaults)[0]


def a_lane(model: str = "gpt-4o-mini", endpoint: str = "/v1/responses", **fields) -> Lane:
    account = fields.pop("account", None) or an_account()
    return Lane.objects.get_or_create(
        account=account, model=model, endpoint=endpoint, defaults=fields
    )[0]


def a_batch(**fields) -> Batch:
    fields.setdefault("lane", None)
    fields["lane"] = fields["lane"] or a_lane(f"model-{next(_count)}")
    return Batch.objects.create(**fields)


def a_destination(**fields) -> Destination:
    fields.setdefault("project", None)
    fields["project"] = fields["project"] or a_project()
    fields.setdefault("type", "webhook")
    fields.setdefault("url", f"http://receiver-{next(_count)}:8080/hook")
    return Destination.objects.create(**fields)


def a_request(*, body: dict | None = None, **fields) -> Request:
    count = next(_count)
    fields.setdefault("project", None)
    fields.setdefault("lane", None)
    fields["project"] = fields["project"] or a_project()
    fields["lane"] = fields["lane"] or (fields["batch"].lane if fields.get("batch") else a_lane())
    raw = json.dumps(body or {"model": fields["lane"].model, "input": f"question {count}"}).encode()
    defaults = {
        "custom_id": f"row-{count}",
        "fingerprint": "f" * 64,
        "seal_by": NOW,
        "size_bytes": len(raw) + 120,
        "token_estimate": 10,
    }
    request = Request.objects.create(**(defaults | fields))
    RequestBody.objects.create(request=request, body=raw)
    return request


def an_answer(request: Request, line: bytes | None = None, **fields) -> Answer:
    line = (
        line
        or json.dumps(
            {
                "id": "batch_req_1",
                "custom_id": request.key,
                "response": {"status_code": 200, "request_id": "r1", "body": {"output": "x"}},
                "error": None,
            }
        ).encode()
    )
    defaults = {"attempt": request.attempt, "batch": request.batch, "status_code": 200}
    return Answer.objects.create(request=request, line=line, **(defaults | fields))


def a_line(custom_id: str | None = None, *, body: bytes | None = None, **fields) -> Line:
    """Return one line as intake gets it."""
    custom_id = custom_id or f"line-{next(_count)}"
    model = fields.pop("model", "gpt-4o-mini")
    body = body or json.dumps({"model": model, "input": f"question of {custom_id}"}).encode()
    url = fields.pop("url", "/v1/responses")
    return Line(custom_id=custom_id, url=url, body=body, model=model, **fields)


def a_batch_at_provider(provider, *, size: int = 3, **fields) -> tuple[Batch, list[Request]]:
    """Return a processing batch that the fake provider holds, and its processing requests."""
    remote = provider.create(
        source=Source(file_id="file_in"), endpoint="/v1/responses", metadata={}
    )
    facts = {"input_file_id": "file_in", "request_count": size, "next_attempt_at": NOW} | fields
    batch = a_batch(state="processing", provider_batch_id=remote.id, **facts)
    requests = [a_request(batch=batch, state="processing") for _ in range(size)]
    return batch, requests


def log_of(row) -> list[tuple]:
    """Return the moves of a row as (from, transition, to, user, text), oldest first."""
    kind = ContentType.objects.get_for_model(type(row))
    rows = StateLog.objects.filter(content_type=kind, object_id=row.pk).order_by("pk")
    return list(
        rows.values_list("source_state", "transition", "state", "by__username", "description")
    )


def states_of(*rows) -> list[str]:
    """Return the present states of rows, in their order."""
    return [type(row).objects.values_list("state", flat=True).get(pk=row.pk) for row in rows]


def in_threads(count: int, work) -> list:
    """Run ``work(place)`` in threads that begin together; return what each returned, or raise."""
    gate = threading.Barrier(count)

    def one(place: int):
        try:
            gate.wait(timeout=10)
            return work(place)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
