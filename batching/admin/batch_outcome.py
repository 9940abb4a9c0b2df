"""What became of a batch's requests, for its page: where the unanswered went, why some failed, where results go.

Each question reads at most READ requests by an index, and says so when there are more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from batching.admin import shown
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Destination, Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet

    from batching.models import Batch

READ: Final = 20_000
_SHOWN: Final = 20
_WORDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class Went:
    """Requests that this batch did not answer, by the batch that holds them now."""

    batch: int | None
    """None: no batch yet."""
    count: int
    url: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Requests that ended badly for one reason."""

    code: str
    count: int
    sample: str
    """One of them, by its client's name."""
    sample_url: str
    words: str
    """What was said about that one."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Results that go to one destination."""

    name: str
    url: str
    """The destination's page; empty: the client pulls."""
    states: list[tuple[str, int, str]]
    """State, how many, and the list of these."""


@dataclass(kw_only=True)
class Outcome:
    """All of it."""

    went: list[Went] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    is_cut: bool = False
    """There are more requests than were read."""


def outcome_of(batch: Batch) -> Outcome:
    """Return what became of the requests of a batch."""
    outcome = Outcome()
    outcome.went = _went(batch, outcome)
    outcome.failures = _failures(batch, outcome)
    outcome.deliveries = _deliveries(batch, outcome)
    return outcome


def _read(rows: QuerySet[Any], outcome: Outcome) -> list[Any]:
    found = list(rows[: READ + 1])
    outcome.is_cut |= len(found) > READ
    return found[:READ]


def _went(batch: Batch, outcome: Outcome) -> list[Went]:
    rows = Request.objects.filter(came_from=batch.pk).order_by().values_list("batch_id", flat=True)
    counts = Counter(_read(rows, outcome))
    return [
        Went(batch=pk, count=count, url=shown.page_at("batching.batch", pk) if pk else "")
        for pk, count in counts.most_common(_SHOWN)
    ]


def _failures(batch: Batch, outcome: Outcome) -> list[Failure]:
    bad = Request.objects.filter(batch=batch, state__in=BAD_ENDS)
    rows = _read(bad.order_by("state", "pk").values_list("error_code", "pk"), outcome)
    counts = Counter(code for code, _ in rows)
    firsts = _firsts(rows)
    samples = Request.objects.in_bulk([firsts[code] for code, _ in counts.most_common(_SHOWN)])
    return [
        Failure(
            code=code or "no code",
            count=count,
            sample=shown.cut_short(str(sample), 60),
            sample_url=shown.page_of(sample),
            words=shown.cut_short(sample.error_message, _WORDS),
        )
        for code, count in counts.most_common(_SHOWN)
        if (sample := samples.get(firsts[code])) is not None
    ]


def _firsts(rows: Iterable[tuple[str, int]]) -> dict[str, int]:
    firsts: dict[str, int] = {}
    for code, pk in rows:
        firsts.setdefault(code, pk)
    return firsts


def _deliveries(batch: Batch, outcome: Outcome) -> list[Delivery]:
    held = Request.objects.filter(batch=batch).order_by("state", "pk")
    settled = held.exclude(state__in=[RequestState.PENDING, RequestState.PROCESSING])
    counts = Counter(_read(settled.values_list("destination_id", "state"), outcome))
    totals = Counter[int | None]()
    for (place, _), count in counts.items():
        totals[place] += count
    named = [pk for pk, _ in totals.most_common(_SHOWN)]
    places = Destination.objects.in_bulk([pk for pk in named if pk is not None])
    return [_delivery(batch, pk, places.get(pk or 0), counts) for pk in named]


def _delivery(
    batch: Batch,
    pk: int | None,
    place: Destination | None,
    counts: Counter[tuple[int | None, str]],
) -> Delivery:
    states = [(state, count) for (at, state), count in counts.items() if at == pk]
    return Delivery(
        name=str(place) if place else "pulled by the client",
        url=shown.page_of(place) if place else "",
        states=[
            (s, n, shown.list_of("batching.request", batch=batch.pk, state__exact=s))
            for s, n in sorted(states)
        ],
    )
