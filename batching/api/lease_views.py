"""Results leased to consumers: take some, acknowledge them, give them back.

Decides the wire types; `delivery.leases` decides who gets what.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from msgspec import Meta, Raw, Struct

from batching.api import bodies
from batching.api.auth import Caller
from batching.api.operations import JSON, Answer, Body, Link, operation, render
from batching.models.projects import Scope
from delivery import leases, results
from delivery.leases import Leased, Settled

MOST: Final = 1_000
LONGEST_S: Final = 43_200
_NAME = r"^(?![\s\S]*[\x00-\x1f\x7f-\x9f])"
_RULES: Final = {
    "": "must be a JSON object",
    "/group": "must be a string of 1 to 100 characters without control characters",
    "/max": f"must be a whole number from 1 to {MOST}",
    "/visibility_s": f"must be a whole number of seconds from 1 to {LONGEST_S}",
    "/lease": "must be the `lease` of a call that leased",
    "/ids": f"must be a list of at most {MOST} ids, `req_…`",
    "/delay_s": f"must be a whole number of seconds from 0 to {LONGEST_S}",
}

_Group = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=_NAME, description=_RULES["/group"])
]
_Token = Annotated[
    str, Meta(min_length=1, max_length=40, pattern=_NAME, description=_RULES["/lease"])
]
_Key = Annotated[str, Meta(min_length=1, max_length=40, pattern=_NAME)]
_Keys = Annotated[list[_Key], Meta(max_length=MOST, description=_RULES["/ids"])]


class NewLease(Struct, forbid_unknown_fields=True, frozen=True):
    """How many results are wanted, by whom, for how long."""

    group: _Group = "default"
    max: Annotated[int, Meta(ge=1, le=MOST, description=_RULES["/max"])] = 100
    visibility_s: Annotated[int, Meta(ge=1, le=LONGEST_S, description=_RULES["/visibility_s"])] = (
        300
    )


class Done(Struct, forbid_unknown_fields=True, frozen=True):
    """Results that are done with; without ``ids`` all that the lease still holds."""

    lease: _Token
    group: _Group = "default"
    ids: _Keys = []


class GivenBack(Struct, forbid_unknown_fields=True, frozen=True):
    """Results that another one shall have; without ``ids`` all that the lease still holds."""

    lease: _Token
    group: _Group = "default"
    ids: _Keys = []
    delay_s: Annotated[int, Meta(ge=0, le=LONGEST_S, description=_RULES["/delay_s"])] = 0


class LeasedResult(Struct, frozen=True):
    """One result in hand."""

    id: str
    """Our id of the request: what is acknowledged."""
    leased_count: int
    """How often this group leased it; more than 1: someone had it and did not acknowledge it."""
    result: Raw
    """What a webhook would get."""


class LeasedResults(Struct, frozen=True):
    """What one call got; empty when there is nothing."""

    lease: str
    """Hand it back with each acknowledgement."""
    group: str
    expires_at: str
    """When what is not acknowledged goes to someone else."""
    results: list[LeasedResult]


class LeaseSettled(Struct, frozen=True):
    """What became of each id."""

    done: list[str]
    lost: list[str]
    """The lease ran out and someone else has it: do nothing."""
    unknown: list[str]
    """Acknowledged before, or never leased: do nothing."""


@operation(
    scope=Scope.READ,
    body=Body(type=NewLease, example='{"group": "billing", "max": 100, "visibility_s": 300}'),
    answers={
        200: Answer(
            "Results, each in nobody else's hand meanwhile.",
            LeasedResults,
            links=tuple(
                Link(
                    to=name,
                    body={"lease": "$response.body#/lease", "group": "$response.body#/group"},
                )
                for name in ("acknowledge_results", "give_back_results")
            ),
        )
    },
    fails=(400, 413, 415, 422),
)
def lease_results(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Lease results that no destination gets.

    Each group gets every result of the project that has no destination, each to one of its consumers at a
    time. What is not acknowledged within `visibility_s` seconds is leased again. A group begins with the
    project's oldest result when it is first named.
    """
    asked = bodies.read(request, NewLease, _RULES)
    leased = leases.lease(
        caller.project,
        asked.group,
        most=asked.max,
        visibility=timedelta(seconds=asked.visibility_s),
        now=timezone.now(),
    )
    return StreamingHttpResponse(_written(asked.group, leased), content_type=JSON)


@operation(
    scope=Scope.READ,
    body=Body(type=Done, example='{"group": "billing", "lease": "lse_0", "ids": ["req_0"]}'),
    answers={200: Answer("What became of each.", LeaseSettled)},
    fails=(400, 413, 415, 422),
)
def acknowledge_results(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Acknowledge leased results: this group never gets them again."""
    sent = bodies.read(request, Done, _RULES)
    settled = leases.acknowledge(caller.project, sent.group, sent.lease, sent.ids)
    return _told(settled)


@operation(
    scope=Scope.READ,
    body=Body(type=GivenBack, example='{"group": "billing", "lease": "lse_0", "delay_s": 10}'),
    answers={200: Answer("What became of each.", LeaseSettled)},
    fails=(400, 413, 415, 422),
)
def give_back_results(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Give leased results back, to be leased again after `delay_s` seconds."""
    sent = bodies.read(request, GivenBack, _RULES)
    settled = leases.give_back(
        caller.project,
        sent.group,
        sent.lease,
        sent.ids,
        after=timedelta(seconds=sent.delay_s),
        now=timezone.now(),
    )
    return _told(settled)


def _written(group: str, leased: Leased) -> Iterator[bytes]:
    """Write LeasedResults piece by piece: a thousand answers may be more than memory should hold."""
    head = LeasedResults(
        lease=leased.token, group=group, expires_at=leased.until.isoformat(), results=[]
    )
    yield msgspec.json.encode(head).removesuffix(b"]}")
    for place, (row, line) in enumerate(results.lines(leased.rows)):
        each = LeasedResult(id=row.key, leased_count=leased.counts[row.pk], result=Raw(line))
        yield (b"," if place else b"") + msgspec.json.encode(each)
    yield b"]}"


def _told(settled: Settled) -> HttpResponse:
    told: Any = LeaseSettled(done=settled.done, lost=settled.lost, unknown=settled.unknown)
    return render(msgspec.json.encode(told))
