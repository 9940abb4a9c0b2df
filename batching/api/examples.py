"""One example of everything that the API answers, for the OpenAPI document.

Each is built from the very type that it shows, so it can't be of another shape. `openapi` prints them; a test
sees that no type is left out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from batching.api import destination_shapes as destinations
from batching.api import errors, shapes
from batching.api import queue_shapes as queues
from batching.api.errors import Error, Errors, Source
from batching.api.event_views import Subscription, SubscriptionPage
from batching.api.health_views import Health, Part, Readiness
from batching.api.lease_views import LeasedResult, LeasedResults, LeaseSettled
from batching.api.replay_views import ReplayPage, ReplayShown
from batching.figures import Figures, Takes, Tokens, Use
from batching.order import Place
from delivery.envelope import Envelope, Usage

_AT: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_LATER: Final = _AT + timedelta(minutes=20)
_REQUEST, _BATCH = "req_01a1fdf20be871eb805b4c36495e2e0c", "bat_01a1fdf2106277409f8ccfa9f59298f5"
_SUBMISSION, _LEASE = "sub_01a1fdf1f3c47e1c9a3d5b7f10e2c4a6", "lse_01a1fdf330b87a52b1c6d8e9f0a2b4c6"
_CURSOR: Final = "MTc"
_NO_TOKENS: Final = Usage(
    input_tokens=None, cached_tokens=None, output_tokens=None, reasoning_tokens=None
)
_TOKENS: Final = Usage(input_tokens=12, cached_tokens=0, output_tokens=3, reasoning_tokens=0)
_COST: Final = "0.0000018"
_RESPONSE: Final = Raw(
    b'{"status_code":200,"request_id":"req_8c1","body":{"id":"resp_1","model":"gpt-4o-mini",'
    b'"output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hello"}]}]}}'
)

_RESULT: Final = Envelope(
    id=Raw(b'"batch_req_1"'),
    custom_id="invoice-17",
    response=_RESPONSE,
    error=Raw(b"null"),
    outcome="succeeded",
    metadata=Raw(b'{"customer":"42"}'),
    usage=_TOKENS,
    cost=_COST,
)
_SEALED: Final = shapes.Transition(
    at=_LATER, transition="seal", from_state="building", to_state="uploading", by=None,
    reason="old enough [by clock]",
)  # fmt: skip
_ANSWERED: Final = shapes.Transition(
    at=_LATER, transition="answered", from_state="processing", to_state="processed", by=None,
    reason="answered [by collection]",
)  # fmt: skip
_SUMMARY: Final[dict[str, Any]] = {
    "id": _REQUEST, "custom_id": "invoice-17", "batch": _BATCH, "submission": None,
    "url": "/v1/responses", "model": "gpt-4o-mini", "account": "openai", "priority": 0, "attempt": 1,
    "created_at": _AT, "state_changed_at": _LATER, "deliver_by": None, "state": "delivered", "outcome": "succeeded",
}  # fmt: skip
_BATCH_SUMMARY: Final[dict[str, Any]] = {
    "id": _BATCH, "state": "processing", "account": "openai", "model": "gpt-4o-mini",
    "url": "/v1/responses", "request_count": 1, "size_bytes": 142, "token_estimate": 11,
    "provider_batch_id": "batch_abc", "provider_status": "in_progress",
    "provider_counts": shapes.Counts(total=1, completed=0, failed=0), "wait_reason": "",
    "priority": 0, "paused_at": None, "pause_reason": "", "last_error": "", "created_at": _AT, "state_changed_at": _LATER, "seal_by": None,
    "next_attempt_at": _LATER + timedelta(seconds=30),
}  # fmt: skip
_SENT_TOGETHER: Final = shapes.SubmissionSummary(
    id=_SUBMISSION, accepted=2, duplicates=0, rejected=1, created_at=_AT, finished_at=_AT
)
_DETAIL: Final = shapes.RequestDetail(
    **_SUMMARY,
    why="It is answered. The result was delivered at 2026-11-21 12:00:09 UTC.",
    explanation=shapes.Explanation(
        reasons=["It is answered.", "The result was delivered at 2026-11-21 12:00:09 UTC."],
        next="",
        next_at=None,
        estimate=None,
    ),
    delivery_config={"type": "webhook", "webhook_url": "https://example.com/results"},
    size_bytes=142,
    token_estimate=11,
    token_estimate_is_exact=True,
    metadata=Raw(b'{"customer":"42"}'),
    answer=_RESPONSE,
    error=Raw(b"null"),
    usage=_TOKENS,
    cost=_COST,
    attempts=[
        shapes.DeliveryAttempt(
            number=1, outcome="success", status=200, detail="", answer="ok", is_replay=False,
            duration_s=0.041, ended_at=_LATER, next_at=None,
        )
    ],
    transitions=[_ANSWERED],
    deadline_policy="wait",
    settled_at=_LATER,
    next_delivery_at=None,
    delivered_at=_LATER,
)  # fmt: skip

_CRM: Final[dict[str, Any]] = {
    "id": "dst_01a1fdf44a5b7c13b2d9e6f7a8b0c1d2", "name": "crm", "state": "open", "stop_reason": "",
    "delivery_config": {"type": "webhook", "webhook_url": "https://example.com/results"},
    "created_at": _AT,
}  # fmt: skip
_CRM_DETAIL: Final[dict[str, Any]] = {
    **_CRM, "headers": {"X-Tenant": "***"}, "retry_delays_s": None, "fail_fast_on_4xx": False,
    "timeout_s": None, "max_in_flight": 8, "max_per_second": None, "max_inline_bytes": None,
    "secret_hint": "…9aZk", "previous_secret_until": None, "paused_at": None, "disabled_at": None,
    "health": destinations.Health(
        sentence="", waiting=0, oldest_due_at=None, given_up=2, in_flight_limit=8,
        given_up_causes=[destinations.Cause(outcome="http_status", status=500, count=2)],
        recent_tries=12, recent_failures=0, failures_in_row=0, failing_since=None,
        last_success_at=_LATER, last_failure_at=None, last_failure="",
    ),
}  # fmt: skip
_SUBSCRIPTION: Final = Subscription(
    id="evs_01a1fdf55b6c7d24c3e0f7a8b9c1d2e3", types=["batch.completed"], destination=_CRM["id"],
    delivery_config=_CRM["delivery_config"], created_at=_AT,
)  # fmt: skip
_REPLAY: Final = ReplayShown(
    id="rpl_01a1fdf55b6c7d24c3e0f7a8b9c1d2e3", state="running", filter={"destination": "crm"},
    only_failed=True, per_second=50.0, reason="the receiver was down", by="key bm_live_q7Rt2xYa",
    matched=12_000, done=3_400, skipped=0, error="", created_at=_AT, ended_at=None,
)  # fmt: skip
_LANE: Final[dict[str, Any]] = {
    "id": "4", "account": "openai", "model": "gpt-4o-mini", "url": "/v1/responses", "state": "open",
    "pause_reason": "", "figures": Figures(
        tokens=Tokens(
            used=1_900_000, limit=2_000_000, source="table", configured=2_000_000, learned=None,
            refused=None, refused_at=None, ratio=0.93, is_frozen=False,
        ),
        lane_batches=Use(used=2, limit=None), batches=Use(used=5, limit=None),
        requests=Use(used=61_000, limit=None), creates=Use(used=7, limit=2_000), waiting=1,
        waiting_tokens=88_000, oldest_waiting_at=_AT,
        takes=Takes(p50_s=1_240, p90_s=5_300, batches=61),
    ),
}  # fmt: skip
_ACCOUNT: Final = queues.AccountShown(
    name="openai", kind="openai", is_shared=True, state="paused", paused_at=_AT,
    pause_reason="by user anna: the key is being changed",
)  # fmt: skip
_NOT_A_SECRET: Final = "whsec_" + "A" * 43 + "="

OF_TYPE: Final[dict[Any, Struct]] = {
    type(example): example
    for example in (
        _RESULT,
        _DETAIL,
        shapes.Taken(id=_REQUEST, custom_id="invoice-17", state="pending"),
        shapes.BulkTaken(
            submission=_SUBMISSION,
            accepted=2,
            duplicates=0,
            rejected=1,
            errors=[
                shapes.LineError(
                    line=3, code="validation_error", detail='method must be "POST"',
                    pointer="/method",
                )
            ],
            errors_left_out=0,
        ),
        shapes.RequestPage(
            data=[shapes.RequestSummary(**_SUMMARY, error=None)], next_cursor=_CURSOR
        ),
        shapes.RequestMoved(
            id=_REQUEST, custom_id="invoice-17", state="cancelled", message="Request cancelled"
        ),
        shapes.BatchPage(data=[shapes.BatchSummary(**_BATCH_SUMMARY)], next_cursor=None),
        shapes.BatchDetail(
            **_BATCH_SUMMARY,
            why="The provider works on it (in_progress): 0 of 1 done. Next: the provider is asked about it.",
            explanation=shapes.Explanation(
                reasons=["The provider works on it (in_progress): 0 of 1 done."],
                next="the provider is asked about it",
                next_at=_LATER + timedelta(seconds=30),
                estimate=None,
            ),
            place=None,
            requests={"processing": 1},
            usage=_NO_TOKENS,
            cost=None,
            answered_count=None,
            failed_count=None,
            transitions=[_SEALED],
        ),
        shapes.BatchMoved(id=_BATCH, state="uploading", message="Batch sealed"),
        queues.BatchPlaced(
            id=_BATCH, state="waiting_for_capacity", lane="4", place=Place(number=1, of=7), priority=10,
            paused_at=None, pause_reason="", message="Priority set",
        ),
        queues.LanePage(data=[queues.LaneSummary(**_LANE)], next_cursor=None),
        queues.LaneDetail(
            **_LANE,
            held_by=[
                queues.Holder(
                    id=None, number=41, lane="4", state="processing", request_count=9_000,
                    token_estimate=1_900_000,
                )
            ],
            line=[
                queues.Waiter(
                    id=_BATCH, number=44, place=1, state="waiting_for_capacity", priority=0,
                    request_count=900, token_estimate=210_000, overtaken=3, is_promoted=False,
                    is_paused=False, wait_reason="waiting for 210,000 of 2,000,000 enqueued tokens;"
                    " 1,900,000 are held by batch 41",
                )
            ],
        ),
        _ACCOUNT,
        queues.AccountList(data=[_ACCOUNT]),
        shapes.SubmissionPage(data=[_SENT_TOGETHER], next_cursor=None),
        shapes.SubmissionDetail(
            **structs.asdict(_SENT_TOGETHER),
            requests={"processing": 2},
            progress=shapes.Progress(
                total=2, packed=2, sent=2, answered=0, failed=0, to_deliver=0, delivered=0,
                delivery_failed=0,
            ),
            cost=None,
        ),
        LeasedResults(
            lease=_LEASE,
            group="billing",
            expires_at=_LATER.isoformat(),
            results=[
                LeasedResult(id=_REQUEST, leased_count=1, result=Raw(msgspec.json.encode(_RESULT)))
            ],
        ),
        LeaseSettled(done=[_REQUEST], lost=[], unknown=[]),
        destinations.DestinationPage(
            data=[destinations.DestinationSummary(**_CRM)], next_cursor=None
        ),
        destinations.DestinationDetail(**_CRM_DETAIL),
        destinations.DestinationMade(**_CRM_DETAIL, secret=_NOT_A_SECRET),
        destinations.SecretShown(
            id=_CRM["id"], secret=_NOT_A_SECRET, previous_secret_until=_AT + timedelta(days=1)
        ),
        destinations.Pinged(
            outcome="delivered", status=200, detail="", answer="ok", address="203.0.113.7:443",
            duration_s=0.041,
        ),
        _SUBSCRIPTION,
        SubscriptionPage(data=[_SUBSCRIPTION], next_cursor=None),
        _REPLAY,
        ReplayPage(data=[_REPLAY], next_cursor=None),
        Health(status="ok"),
        Readiness(
            status="ready",
            parts={
                name: Part(is_ready=True, detail="ok")
                for name in ("database", "broker", "progress")
            },
        ),
    )
}  # fmt: skip
"""By the type of the answer, or of each of its lines."""

OF_MEDIA_TYPE: Final[dict[str, Any]] = {
    "application/json": {"openapi": "3.1.0"},
    "text/html": "<!doctype html>",
    "text/plain": "batcher_deliveries_due 0\n",
    "text/csv": "custom_id,outcome,status_code,response,error,input_tokens,cached_tokens,output_tokens,"
    'reasoning_tokens,cost,metadata\r\ninvoice-17,succeeded,200,"{""id"":""resp_1""}",,12,0,3,0,0.0000018,{}\r\n',
}
"""Of answers that no type of ours describes."""

_DETAILS: Final = {
    "validation_error": 'method must be "POST"',
    "invalid_parameter": "limit must be a whole number from 1 to 200",
    "unauthorized": "this API key is not valid",
    "not_found": "no such request",
    "rate_limited": "this API key may have 600 calls a minute; go on in 2 s",
}


def shown(type_: Any) -> Any:
    """Return the example of a type as JSON-like values; None: there is none, and a test complains."""
    example = OF_TYPE.get(type_)
    return None if example is None else msgspec.json.decode(msgspec.json.encode(example))


def shown_error(code: str) -> Any:
    """Return what a call answers that failed with this code, as JSON-like values."""
    return msgspec.json.decode(msgspec.json.encode(_failed(code)))


def _failed(code: str) -> Errors:
    source = {
        "validation_error": Source(pointer="/method"),
        "invalid_parameter": Source(parameter="limit"),
    }.get(code)
    title = errors.title_of(code)
    return Errors(
        errors=[
            Error(
                status=str(errors.status_of(code)),
                code=code,
                title=title,
                detail=_DETAILS.get(code, title),
                source=source,
            )
        ]
    )
