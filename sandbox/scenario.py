"""The scenario: how the sandbox behaves, read from JSON.

A scenario says how long the stages of a batch take, what the provider's limits are, and which
faults (faults.py) strike what. It is given at the start, over ``/sandbox/scenario``, or taken from
the ready-made ones beside this file. This file only reads and checks it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from sandbox.faults import (
    AnyRule,
    BatchRule,
    CallRule,
    LineRule,
    Match,
    Quantity,
    Rule,
    Seconds,
)

READY_MADE = Path(__file__).with_name("scenarios")


class Durations(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long each stage of a batch takes, in seconds of the sandbox's clock."""

    validating_s: Seconds = 0.3
    in_progress_s: Seconds = 0.4
    finalizing_s: Seconds = 0.3
    cancelling_s: Seconds = 0.3


class Limits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The provider's limits."""

    lines: Quantity = 50_000
    file_bytes: Quantity = 209_715_200
    messages: Quantity = 100_000
    """Requests in a message batch."""
    message_bytes: Quantity = 268_435_456
    """Bytes of the body that creates a message batch."""
    enqueued_tokens: dict[str, Quantity] = {}
    """By model (``*`` allowed): batches beyond it fail with token_limit_exceeded."""


class Webhook(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where batch.* events of OpenAI's side go, and what signs them."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    secret: Annotated[str, msgspec.Meta(pattern="^whsec_[A-Za-z0-9+/]{22,}=*$")]
    times: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """How often each is sent, with one id: receivers must hear it once."""


class Scenario(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A whole scenario."""

    description: str = ""
    durations: Durations = Durations()
    limits: Limits = Limits()
    unknown_models: list[str] = []
    """Models (``*`` allowed) that do not exist here."""
    webhook: Webhook | None = None
    """None: nobody is told."""
    rules: list[AnyRule] = []


class ScenarioError(ValueError):
    """The scenario can't be used; the message says where and why."""


_COMMON = {"model", "endpoint", "metadata", "nth", "every"}
_MEMBERS: dict[type[Rule], set[str]] = {
    CallRule: _COMMON | {"route", "body"},
    BatchRule: _COMMON,
    LineRule: _COMMON | {"custom_id", "body", "line"},
}


def parse(text: bytes) -> Scenario:
    """Read a scenario from JSON; raise ScenarioError when any part of it makes no sense."""
    try:
        scenario = msgspec.json.decode(text, type=Scenario)
    except msgspec.DecodeError as error:
        raise ScenarioError(str(error)) from error
    for number, rule in enumerate(scenario.rules):
        _check(rule, f"$.rules[{number}]")
    return scenario


def load(name: str | Path) -> Scenario:
    """Read a scenario from a file, or a ready-made one by its bare name."""
    path = Path(name)
    ready = READY_MADE / f"{name}.json"
    if not path.exists() and path.name == str(name) and ready.exists():
        path = ready
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ScenarioError(f"can't read scenario {name}: {error.strerror}") from error
    except ScenarioError as error:
        raise ScenarioError(f"scenario {name}: {error}") from error


def ready_made() -> list[str]:
    """Return the names of the scenarios that come with the sandbox."""
    return sorted(path.stem for path in READY_MADE.glob("*.json"))


def dump(scenario: Scenario) -> bytes:
    """Return the scenario as JSON, defaults included."""
    return msgspec.json.encode(scenario)


def _check(rule: Rule, where: str) -> None:
    family = next(kind for kind in _MEMBERS if isinstance(rule, kind))
    given = {name for name in Match.__struct_fields__ if getattr(rule.match, name) is not None}
    if strange := sorted(given - _MEMBERS[family]):
        fault = rule.__struct_config__.tag
        raise ScenarioError(f"`{fault}` can't match on `{strange[0]}` - at `{where}.match`")
    for name in ("custom_id", "body"):
        try:
            re.compile(getattr(rule.match, name) or "")
        except re.error as error:
            raise ScenarioError(f"not a pattern: {error} - at `{where}.match.{name}`") from error
