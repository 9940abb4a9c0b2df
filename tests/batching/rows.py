"""Rows for tests, each with what it needs, in whatever state."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

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
