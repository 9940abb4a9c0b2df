"""Samples: a few made-up requests sent through the sandbox, and how far each of them is.

The sandbox page calls ``send`` and ``progress_of``. A sample is an upload like any other: the same intake takes it,
the same clock moves it. It costs nothing, for it names the sandbox's account.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Count, Max, Q

from batching import audit, intake, wire
from batching.intake import Rejected
from batching.lifecycle import Actor, BatchState, RequestState
from batching.models import Account, Batch, Destination, Project, Submission
from batching.models.projects import place_of
from batching.steering import Refused
from delivery import destinations

MOST: Final = 500
RECEIVER: Final = "sandbox-receiver"
"""Name of the destination that leads to the sandbox's own receiver."""
_IMPATIENT: Final = (0, 2)
"""Seconds before its tries: two, so that a broken receiver shows its dead letters within seconds."""
_BATCHES_SHOWN: Final = 5
_NOT_YET_UP: Final = (BatchState.BUILDING, BatchState.UPLOADING)
_NOT_YET_THERE: Final = (
    *_NOT_YET_UP, BatchState.UPLOADED, BatchState.WAITING_FOR_CAPACITY, BatchState.SUBMITTING,
)  # fmt: skip
_MODELS: Final = {
    Account.Kind.SANDBOX: ("gpt-4o-mini", "/v1/responses"),
    Account.Kind.SANDBOX_ANTHROPIC: ("claude-haiku-4-5", "/v1/messages"),
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is to be sent."""

    project: Project
    account: Account
    count: int
    model: str
    """Empty: one that the account's side knows."""
    delivery: dict[str, str]
    """A ``delivery_config``."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the way, and how many requests have come so far."""

    title: str
    come: int
    of: int
    note: str = ""
    lost: int = 0
    """How many will not come by themselves."""

    @property
    def standing(self) -> str:
        """``done``, ``now`` (some have come), ``ahead``, or ``bad`` when some will not come by themselves."""
        if self.lost:
            return "bad"
        if self.of and self.come >= self.of:
            return "done"
        return "now" if self.come else "ahead"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a sample is."""

    submission: Submission
    steps: tuple[Step, ...]
    ends: dict[str, int]
    """How many ended badly, by state; and ``given_up``."""
    batches: list[Batch]
    is_over: bool
    """Nothing more happens by itself."""


def send(sample: Sample, *, by: Actor, now: datetime) -> Submission:
    """Store a sample and return its submission. Raises Refused with the first line's fault."""
    name = f"sample-{secrets.token_hex(3)}"
    try:
        lines = [wire.read_line(_line(sample, name, n)) for n in range(1, sample.count + 1)]
    except wire.Invalid as problem:
        raise Refused(problem.code, problem.detail) from problem
    with transaction.atomic():
        submission = Submission.objects.create(
            project=sample.project, accepted=sample.count, finished_at=now
        )
        for answer in intake.accept(sample.project, lines, submission=submission, by=by, now=now):
            if isinstance(answer, Rejected):
                raise Refused(answer.code, answer.detail)
        asked = {"requests": sample.count, "account": sample.account.name, **sample.delivery}
        audit.record("sandbox.sample", by=by, row=submission, after=asked)
    return submission


def _line(sample: Sample, name: str, number: int) -> bytes:
    kind = Account.Kind(sample.account.kind)
    model, url = _MODELS[kind]
    question = f"Question {number}: say hello in one word."
    body: dict[str, Any] = {"model": sample.model or model}
    if kind is Account.Kind.SANDBOX:
        body["input"] = question
    else:
        body |= {"max_tokens": 64, "messages": [{"role": "user", "content": question}]}
    line = {
        "custom_id": f"{name}-{number}",
        "url": url,
        "method": "POST",
        "body": body,
        "delivery_config": sample.delivery,
        "account": sample.account.name,
        "max_wait_s": 0,
    }
    return json.dumps(line).encode()


def receiver_of(project: Project, url: str) -> Destination:
    """Return the project's destination that leads to the sandbox's receiver, made on first use.

    Raises Refused when the address may not be sent to. Call inside atomic.
    """
    present = Destination.objects.present().filter(project=project)
    row = (
        present.filter(fingerprint=place_of("webhook", url, "", "", "")).first()
        or present.filter(name=RECEIVER).first()
        or Destination(project=project, type=Destination.Type.WEBHOOK)
    )
    if row.url == url:
        return row
    row.url = url  # another port, since the sandbox took a free one
    if row._state.adding:
        row.name, row.retry_delays_s, row.fail_fast_on_4xx = RECEIVER, [*_IMPATIENT], True
        destinations.give_secret(row)
    for problem in destinations.problems_with(row):
        raise Refused("validation_error", f"{url} {problem.detail}")
    row.save()
    return row


def progress_of(submission: Submission) -> Progress:
    """Say how far a sample is; a few queries, along the index on its submission."""
    rows = submission.requests.order_by()
    open_ = (RequestState.PENDING, RequestState.PROCESSING)
    counted = rows.aggregate(
        all=Count("pk"),
        packed=Count("pk", filter=Q(batch__isnull=False) | ~Q(state__in=open_)),
        uploaded=Count(
            "pk", filter=~Q(batch__state__in=_NOT_YET_UP, state__in=open_) & Q(batch__isnull=False)
        ),
        there=Count(
            "pk",
            filter=~Q(batch__state__in=_NOT_YET_THERE, state__in=open_) & Q(batch__isnull=False),
        ),
        settled=Count("settled_at"),
        pulled=Count("settled_at", filter=Q(destination=None)),
        delivered=Count("delivered_at"),
        given_up=Count("dead_at"),
        last_settled=Max("settled_at"),
        last_delivered=Max("delivered_at"),
        **{str(state): Count("pk", filter=Q(state=state)) for state in _BAD},
    )
    done = counted["delivered"] + counted["given_up"] + counted["pulled"]
    batches = Batch.objects.filter(pk__in=rows.values("batch")).select_related("lane__account")
    return Progress(
        submission=submission,
        steps=_steps(counted),
        ends={name: counted[name] for name in (*map(str, _BAD), "given_up") if counted[name]},
        batches=list(batches.order_by("pk")[:_BATCHES_SHOWN]),
        is_over=counted["all"] == counted["settled"] <= done,
    )


_BAD: Final = (RequestState.FAILED, RequestState.EXPIRED, RequestState.CANCELLED)


def _steps(counted: dict[str, Any]) -> tuple[Step, ...]:
    every = counted["all"]
    kept = f"{counted['pulled']} kept for whoever pulls" if counted["pulled"] else ""
    settled, delivered = counted["last_settled"], counted["last_delivered"]
    return (
        Step(title="Accepted", come=every, of=every, note="stored for good"),
        Step(title="Packed", come=counted["packed"], of=every, note="in a batch"),
        Step(title="Uploaded", come=counted["uploaded"], of=every, note="as a file"),
        Step(title="At the provider", come=counted["there"], of=every, note="created and running"),
        Step(
            title="Answered",
            come=counted["settled"],
            of=every,
            note=f"last at {settled:%H:%M:%S} UTC" if settled else "",
        ),
        Step(
            title="Delivered",
            come=counted["delivered"] + counted["pulled"],
            of=every,
            note=_fate(counted, kept, delivered),
            lost=counted["given_up"],
        ),
    )


def _fate(counted: dict[str, Any], kept: str, delivered: datetime | None) -> str:
    """Say what became of the results."""
    if counted["given_up"]:
        return f"{counted['given_up']:,} given up"
    return kept or (f"last at {delivered:%H:%M:%S} UTC" if delivered else "")
