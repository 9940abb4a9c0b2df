"""Destinations on the wire: what a client may send of one, and what it is shown. Secrets are shown once.

The OpenAPI document is printed from these types. `destination_views` reads and answers them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from batching.audit import MASK
from batching.models import Destination
from batching.wire import ToRabbitmq, ToWebhook
from delivery.destinations import LONGEST_DELAY_S, MOST_DELAYS, MOST_OVERLAP, RANGES
from delivery.standing import Standing
from delivery.webhook import MAX_HEADERS

MAX_BODY_BYTES: Final = 64 * 1024
_MOST_HOURS = MOST_OVERLAP.total_seconds() / 3600
_PLAIN = r"^(?![\s\S]*[\x00-\x1f\x7f-\x9f])"


def _range(field: str) -> str:
    least, most = RANGES[field]
    return f"from {least:,} to {most:,}"


RULES: Final = {
    "": "must be a JSON object",
    "/name": "must be a string of 1 to 100 characters without control characters",
    "/delivery_config/type": "must be webhook or rabbitmq",
    "/headers": f"must be an object of at most {MAX_HEADERS} names and texts; null takes one away",
    "/retry_delays_s": f"must be a list of 1 to {MOST_DELAYS} numbers of seconds, one for each try, or null: the default",
    "/fail_fast_on_4xx": "must be true or false; true: a client error ends a delivery at once",
    "/timeout_s": f"must be a number of seconds {_range('timeout_s')}, or null: the default",
    "/max_in_flight": f"must be a whole number {_range('max_in_flight')}, or null: the default",
    "/max_per_second": f"must be a number {_range('max_per_second')}, or null: no fixed rate",
    "/max_inline_bytes": f"must be a whole number {_range('max_inline_bytes')}, or null: the default",
    "/reason": "must be a string of 1 to 200 characters without control characters",
    "/overlap_hours": f"must be a number from 0 to {_MOST_HOURS:g}",
}
"""What each field must be: the text of its error and its description in the OpenAPI document."""

Name = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=_PLAIN, description=RULES["/name"])
]
_Delays = Annotated[
    list[Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": LONGEST_DELAY_S})]],
    Meta(min_length=1, max_length=MOST_DELAYS, description=RULES["/retry_delays_s"]),
]
_FailFast = Annotated[bool, Meta(description=RULES["/fail_fast_on_4xx"])]


def _within(field: str) -> Meta:
    """Write a field's range into the document; `delivery.destinations` refuses what is outside."""
    least, most = RANGES[field]
    bounds = {"minimum": least, "maximum": most}
    return Meta(description=RULES[f"/{field}"], extra_json_schema=bounds)


_Timeout = Annotated[float, _within("timeout_s")]
_InFlight = Annotated[int, _within("max_in_flight")]
_Rate = Annotated[float, _within("max_per_second")]
_Inline = Annotated[int, _within("max_inline_bytes")]
_HEADERS = Meta(
    description=RULES["/headers"],
    extra_json_schema={
        "maxProperties": MAX_HEADERS,
        "propertyNames": {"pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    },
)


class NewDestination(Struct, forbid_unknown_fields=True, frozen=True):
    """A named place for results."""

    name: Name
    delivery_config: ToWebhook | ToRabbitmq
    headers: Annotated[dict[str, str], _HEADERS] = {}
    retry_delays_s: _Delays | None = None
    fail_fast_on_4xx: _FailFast = False
    timeout_s: _Timeout | None = None
    max_in_flight: _InFlight | None = None
    max_per_second: _Rate | None = None
    max_inline_bytes: _Inline | None = None


class DestinationChange(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to be otherwise; what is not given stays. Headers are merged by name."""

    name: Name | UnsetType = UNSET
    delivery_config: ToWebhook | ToRabbitmq | UnsetType = UNSET
    headers: Annotated[dict[str, str | None], _HEADERS] | UnsetType = UNSET
    retry_delays_s: _Delays | UnsetType | None = UNSET
    fail_fast_on_4xx: _FailFast | UnsetType = UNSET
    timeout_s: _Timeout | UnsetType | None = UNSET
    max_in_flight: _InFlight | UnsetType | None = UNSET
    max_per_second: _Rate | UnsetType | None = UNSET
    max_inline_bytes: _Inline | UnsetType | None = UNSET


class Why(Struct, forbid_unknown_fields=True, frozen=True):
    """The reason of a deed, for those who look at it later."""

    reason: Annotated[
        str, Meta(min_length=1, max_length=200, pattern=_PLAIN, description=RULES["/reason"])
    ] = "asked for by its client"


class Rotation(Struct, forbid_unknown_fields=True, frozen=True):
    """How long the secret before signs beside the new one."""

    overlap_hours: Annotated[
        float, Meta(ge=0, le=_MOST_HOURS, description=RULES["/overlap_hours"])
    ] = 24


class DestinationSummary(Struct, frozen=True):
    """One destination, as lists show it."""

    id: str
    name: str
    """Empty: made on first use of its delivery_config."""
    state: str
    """open, paused or disabled; what is due meanwhile is held."""
    stop_reason: str
    delivery_config: dict[str, str]
    created_at: datetime


class DestinationPage(Struct, frozen=True):
    """A page of destinations."""

    data: list[DestinationSummary]
    next_cursor: str | None


class Cause(Struct, frozen=True):
    """How the last try of some results that were given up ended."""

    outcome: str
    """Empty: their attempts are not kept any more."""
    status: int | None
    """HTTP status, when there was one."""
    count: int


class Health(Struct, frozen=True):
    """How it stands, in figures."""

    sentence: str
    """Why what is due waits, and until when; empty when nothing holds it up."""
    waiting: int
    """Results to be sent here, now or later; counted up to 10,000."""
    oldest_due_at: datetime | None
    given_up: int
    """Results whose delivery was given up; redeliver them when the receiver is well."""
    given_up_causes: list[Cause]
    """The same results by how their last try ended, the most frequent first."""
    in_flight_limit: int
    """Tries that may be under way now."""
    recent_tries: int
    """Of the last five minutes, as `recent_failures`."""
    recent_failures: int
    failures_in_row: int
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure: str


_OF_TRIES: Final = (
    "sentence", "in_flight_limit", "recent_tries", "recent_failures", "failures_in_row",
    "failing_since", "last_success_at", "last_failure_at", "last_failure",
)  # fmt: skip


class DestinationDetail(DestinationSummary, frozen=True):
    """One destination with its terms and how it fares."""

    headers: dict[str, str]
    """Values are masked."""
    retry_delays_s: list[float] | None
    fail_fast_on_4xx: bool
    timeout_s: float | None
    max_in_flight: int | None
    max_per_second: float | None
    max_inline_bytes: int | None
    secret_hint: str
    """The last four characters of the signing secret; empty when there is none."""
    previous_secret_until: datetime | None
    """Until then the secret before signs as well."""
    paused_at: datetime | None
    disabled_at: datetime | None
    health: Health


class DestinationMade(DestinationDetail, frozen=True):
    """A new destination, and its secret."""

    secret: str = ""
    """`whsec_…`, shown this once; empty for RabbitMQ, which is not signed."""


class SecretShown(Struct, frozen=True):
    """A new secret."""

    id: str
    secret: str
    """`whsec_…`, shown this once."""
    previous_secret_until: datetime | None
    """Until then the secret before signs as well."""


class Pinged(Struct, frozen=True):
    """How a test message ended."""

    outcome: str
    """`delivered`, or what went wrong."""
    status: int | None
    """HTTP status, when there was one."""
    detail: str
    answer: str
    """What the receiver said, its first 2,000 characters."""
    address: str
    """The address that was connected to."""
    duration_s: float


def summary_facts(row: Destination) -> dict[str, Any]:
    """Return what lists show of a destination."""
    return {
        "id": row.key,
        "name": row.name,
        "state": row.state,
        "stop_reason": row.stop_reason,
        "delivery_config": row.config,
        "created_at": row.created_at,
    }


def detail_facts(row: Destination, standing: Standing) -> dict[str, Any]:
    """Return what is shown of one destination; of its secrets, their ends."""
    return {
        **summary_facts(row),
        **{f: getattr(row, f) for f in ("retry_delays_s", "fail_fast_on_4xx", *RANGES)},
        "headers": dict.fromkeys(row.own_headers, MASK),
        "secret_hint": f"…{row.secret[-4:]}" if row.secret else "",
        "previous_secret_until": row.previous_secret_until,
        "paused_at": row.paused_at,
        "disabled_at": row.disabled_at,
        "health": Health(
            waiting=standing.waiting,
            oldest_due_at=standing.oldest_due_at,
            given_up=standing.given_up,
            given_up_causes=[
                Cause(outcome=c.outcome, status=c.status, count=c.count) for c in standing.causes
            ],
            **{f: getattr(standing.health, f) for f in _OF_TRIES},
        ),
    }
