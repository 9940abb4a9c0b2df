"""Which rule strikes when.

A RuleBook holds one scenario's rules by number; a Tally remembers how often each fitted and
struck, so that ``nth``, ``every`` and ``times`` hold over calls, batches and restarts. Chance is
drawn from the seed, never from the moment: the same calls bring the same faults.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from sandbox.faults import BatchRule, CallRule, LineRule, Match, Rule
from sandbox.scenario import Scenario

R = TypeVar("R", bound=Rule)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a rule may strike: a call, a batch or a line. What is None fits no condition."""

    route: str | None = None
    model: str | None = None
    endpoint: str | None = None
    metadata: Mapping[str, str] | None = None
    custom_id: str | None = None
    body: bytes | None = None
    line: int | None = None


class Count(msgspec.Struct):
    """How often a rule fitted and how often it struck."""

    fitted: int = 0
    struck: int = 0


class Tally:
    """The counts of all rules; the caller loads it, and saves what ``changed``."""

    def __init__(self, counts: Mapping[str, Count] | None = None) -> None:
        self._counts = dict(counts or {})
        self.changed: dict[str, Count] = {}

    def of(self, key: str) -> Count:
        """Return the count of a rule, to be changed in place."""
        count = self.changed.get(key)
        if count is None:
            known = self._counts.get(key, Count())
            count = self.changed[key] = Count(known.fitted, known.struck)
        return count


class RuleBook:
    """The rules of one scenario, ready to be asked."""

    def __init__(self, generation: int, scenario: Scenario, seed: int) -> None:
        self.generation = generation
        self.scenario = scenario
        self._seed = seed
        self._calls = self._numbered(CallRule)
        self._batches = self._numbered(BatchRule)
        self._lines = self._numbered(LineRule)

    def call_fault(self, call: Subject, tally: Tally) -> CallRule | None:
        """Return the first rule that strikes this call."""
        for number, rule in self._calls:
            if (not rule.only or call.route in rule.only) and self._strikes(
                number, rule, call, tally
            ):
                return rule
        return None

    def draw_batch_faults(self, batch: Subject, tally: Tally) -> list[int]:
        """Return the numbers of the rules that strike a new batch, at most one of each fault."""
        drawn: dict[type[Rule], int] = {}
        for number, rule in self._batches:
            if type(rule) not in drawn and self._strikes(number, rule, batch, tally):
                drawn[type(rule)] = number
        return list(drawn.values())

    def batch_faults(self, drawn: Iterable[int]) -> list[BatchRule]:
        """Return the rules that were drawn for a batch."""
        numbers = set(drawn)
        return [rule for number, rule in self._batches if number in numbers]

    def line_faults(
        self, kinds: tuple[type[LineRule], ...], line: Subject, tally: Tally
    ) -> list[LineRule]:
        """Return all rules of these kinds that strike a line, in the scenario's order."""
        return [
            rule
            for number, rule in self._lines
            if isinstance(rule, kinds) and self._strikes(number, rule, line, tally)
        ]

    @property
    def has_call_rules(self) -> bool:
        """True when calls must be held against rules at all."""
        return bool(self._calls)

    @property
    def has_line_rules(self) -> bool:
        """True when lines must be held against rules at all."""
        return bool(self._lines)

    def is_known_model(self, model: str) -> bool:
        """Return whether the pretended provider has this model."""
        return not any(fnmatch.fnmatchcase(model, name) for name in self.scenario.unknown_models)

    def token_limit(self, model: str) -> int | None:
        """Return how many prompt tokens of a model may be in its queue, None for no limit."""
        limits = self.scenario.limits.enqueued_tokens
        fits = (limit for name, limit in limits.items() if fnmatch.fnmatchcase(model, name))
        return next(fits, None)

    def _numbered(self, family: type[R]) -> list[tuple[int, R]]:
        rules = enumerate(self.scenario.rules)
        return [(number, rule) for number, rule in rules if isinstance(rule, family)]

    def _strikes(self, number: int, rule: Rule, subject: Subject, tally: Tally) -> bool:
        if not fits(rule.match, subject):
            return False
        key = f"{self.generation}:{number}"
        count = tally.of(key)
        count.fitted += 1
        if not _is_due(rule.match, count.fitted):
            return False
        if rule.times is not None and count.struck >= rule.times:
            return False
        who = subject.custom_id if subject.custom_id is not None else count.fitted
        if rule.rate < 1 and _chance(f"{self._seed}:{number}:{who}") >= rule.rate:
            return False
        count.struck += 1
        return True


def fits(match: Match, subject: Subject) -> bool:
    """Return whether every condition given fits, leaving counts aside."""
    return (
        _glob(match.route, subject.route)
        and _glob(match.model, subject.model)
        and (match.endpoint is None or match.endpoint == subject.endpoint)
        and _holds(match.metadata, subject.metadata)
        and _found(match.custom_id, subject.custom_id)
        and _found_in_bytes(match.body, subject.body)
        and (match.line is None or subject.line in _numbers(match.line))
    )


def _is_due(match: Match, occurrence: int) -> bool:
    if match.nth is not None and occurrence not in _numbers(match.nth):
        return False
    return match.every is None or occurrence % match.every == 0


def _numbers(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _glob(wanted: str | list[str] | None, value: str | None) -> bool:
    if wanted is None:
        return True
    names = [wanted] if isinstance(wanted, str) else wanted
    return value is not None and any(fnmatch.fnmatchcase(value, name) for name in names)


def _holds(wanted: Mapping[str, str] | None, value: Mapping[str, str] | None) -> bool:
    return wanted is None or wanted.items() <= (value or {}).items()


def _found(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (value is not None and re.search(pattern, value) is not None)


def _found_in_bytes(pattern: str | None, value: bytes | None) -> bool:
    return pattern is None or (value is not None and _compiled(pattern).search(value) is not None)


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode())


def _chance(text: str) -> float:
    """Return a number in 0..1 that depends on the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
