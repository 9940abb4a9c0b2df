"""Figures in Prometheus' text format: how a line is written, and the counters that the panel's charts show.

The counters are the tallies of all time, read in one query of some hundred rows at most. They rise by what is counted
every ten seconds; ``batcher_counted_age_seconds`` says how old they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from batching.costs import NANO
from batching.models import Tally
from batching.models.tallies import ALWAYS
from batching.tallying import ENDED, MOVED, SPENT, TRIED, TURNAROUND, turnaround_bounds_s
from batching.timelines import counted_until


def metric(name: str, kind: str, about: str, values: Mapping[str, float] | float) -> Iterator[str]:
    """Yield the lines of one figure; ``values`` by labels as they are written, ``{state="pending"}``."""
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    if isinstance(values, Mapping):
        yield from (f"{name}{labels} {value}" for labels, value in values.items())
    else:
        yield f"{name} {values}"


def _labels(**labels: str) -> str:
    """Return labels as they are written; values may be a provider's words."""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def of_tallies(now: datetime) -> Iterator[str]:
    """Yield the counters behind the charts. Two queries."""
    counts: dict[str, Counter[str]] = {
        measure: Counter() for measure in (MOVED, ENDED, TRIED, TURNAROUND, SPENT)
    }
    rows = Tally.objects.filter(width_s=ALWAYS).order_by("measure", "name")
    for measure, name, count in rows.values_list("measure", "name", "count"):
        counts[measure][name] += count
    accepted = sum(count for name, count in counts[MOVED].items() if name.startswith(">"))
    yield from metric("batcher_requests_accepted_total", "counter", "Requests accepted.", accepted)
    delivered = counts[TRIED]["delivered"]
    about = "Results that reached their destination."
    yield from metric("batcher_results_delivered_total", "counter", about, delivered)
    yield from metric(
        "batcher_requests_ended_badly_total", "counter", "Bad ends, by state and error.",
        {_labels(state=name.partition(":")[0], error=name.partition(":")[2]): count
         for name, count in counts[ENDED].items()},
    )  # fmt: skip
    yield from metric(
        "batcher_delivery_attempts_by_outcome_total", "counter", "Tries at delivery, by outcome.",
        {_labels(outcome=name): count for name, count in counts[TRIED].items()},
    )  # fmt: skip
    yield from _turnaround(counts[TURNAROUND])
    yield from _spent(counts[SPENT])
    until = counted_until()
    about = "Seconds since everything was counted last; 0: never yet."
    age = round((now - until).total_seconds(), 3) if until else 0
    yield from metric("batcher_counted_age_seconds", "gauge", about, age)


def _turnaround(buckets: Counter[str]) -> Iterator[str]:
    """Yield a histogram; buckets of Prometheus hold all below them, too. It has no sum, for none is kept."""
    name = "batcher_turnaround_seconds"
    yield f"# HELP {name} From intake to first delivery."
    yield f"# TYPE {name} histogram"
    passed = 0
    for place, bound in enumerate(turnaround_bounds_s()):
        passed += buckets[f"{place:02}"]
        yield f'{name}_bucket{{le="{bound:g}"}} {passed}'
    total = sum(buckets.values())
    yield f'{name}_bucket{{le="+Inf"}} {total}'
    yield f"{name}_count {total}"


def _spent(sums: Counter[str]) -> Iterator[str]:
    cost, ordinary = sums["cost"] / NANO, sums["ordinary"] / NANO
    about = "US$ that answers cost, as far as prices are known."
    yield from metric("batcher_spent_dollars_total", "counter", about, round(cost, 9))
    about = "US$ that the same answers would have cost one by one."
    yield from metric("batcher_ordinary_price_dollars_total", "counter", about, round(ordinary, 9))
    yield from metric(
        "batcher_tokens_total", "counter", "Tokens of answers, by direction.",
        {_labels(direction=name): sums[name] for name in ("input", "output")},
    )  # fmt: skip


__all__ = ["metric", "of_tallies"]
