"""Telling our own stand-in provider how to behave, and asking it what it saw (docs/sandbox.md, "Control").

The sandbox page calls this through ``gateway``. It speaks to ``/sandbox``, which no real provider has, by the same
guarded HTTP as providers, with a short deadline: a page waits for it. Every method raises ProviderError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from batching.providers.base import ProviderError, Trouble
from batching.providers.http import Http, Timeouts, path_of

_TIMEOUTS: Final = Timeouts(connect_s=1.0, silence_s=3.0, call_s=3.0)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A ready-made scenario, or a fault."""

    name: str
    description: str
    strikes: str = ""
    """Of a fault: ``calls``, ``batches`` or ``lines``."""


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How the sandbox behaves now."""

    description: str
    faults: tuple[str, ...]
    """Names of the faults of its rules, in their order; empty: it behaves."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One webhook that the built-in receiver got."""

    at: datetime
    custom_id: str
    webhook_id: str
    answered: int
    """HTTP status."""
    size_bytes: int
    is_replay: bool


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """The built-in receiver."""

    status: int
    """What it answers now."""
    taken: int
    """Arrivals that it answered with 2xx, of those that it keeps."""
    refused: int
    arrivals: Sequence[Arrival]
    """The newest first."""

    @property
    def is_well(self) -> bool:
        """True when it takes what comes."""
        return self.status < 300


class SandboxControl:
    """The control calls of one sandbox."""

    def __init__(self, *, base_url: str, api_key: str) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        self.receiver_url = f"{root}/receiver"
        """Where webhooks are taken."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = Http(f"{root}/sandbox", headers=headers, secret=api_key, timeouts=_TIMEOUTS)

    def scenarios(self) -> list[Named]:
        """Return the ready-made scenarios."""
        return self._named("/scenarios")

    def faults(self) -> list[Named]:
        """Return every fault that a rule may name."""
        return self._named("/faults")

    def conduct(self) -> Conduct:
        """Return how it behaves now."""
        found = self._http.get("/scenario")
        try:
            rules = tuple(str(rule["fault"]) for rule in found["rules"])
            return Conduct(description=str(found["description"]), faults=rules)
        except (KeyError, TypeError) as error:
            raise _strange() from error

    def behave_like(self, scenario: str) -> None:
        """Take one of the ready-made scenarios."""
        self._http.put(f"/scenario?ready_made={path_of(scenario)[1:]}", {})

    def misbehave(self, scenario: Mapping[str, Any]) -> None:
        """Take a scenario (members as in docs/sandbox.md)."""
        self._http.put("/scenario", scenario)

    def behave(self) -> None:
        """Have no fault any more."""
        self._http.delete("/scenario")

    def receiver(self, *, limit: int) -> Receiver:
        """Return how the built-in receiver answers, with up to ``limit`` arrivals."""
        found = self._http.get("/receiver", params={"limit": limit})
        try:
            return msgspec.convert({**found, "arrivals": _timed(found)}, Receiver)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise _strange() from error

    def answer(self, status: int) -> None:
        """Let the built-in receiver answer so from now on."""
        self._http.put("/receiver", {"status": status})

    def _named(self, path: str) -> list[Named]:
        try:
            return msgspec.convert(self._http.get(path)["data"], list[Named])
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise _strange() from error


def _timed(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**one, "at": datetime.fromtimestamp(float(one["at"]), UTC)} for one in found["arrivals"]
    ]


def _strange() -> ProviderError:
    return ProviderError("what answers there is not our sandbox", trouble=Trouble.CREDENTIALS)
