"""What the provider saw and wrote, byte for byte, and short ways to make it misbehave."""

from __future__ import annotations

import json
from typing import Any

from tests.sandbox_process import SandboxProcess


def misbehave(provider: SandboxProcess, *rules: dict[str, Any], **scenario: Any) -> None:
    """Set the rules that stand from here on (docs/sandbox.md lists them)."""
    provider.set_scenario({"rules": list(rules), **scenario})


def fault(name: str, *, times: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a rule; ``body``, ``route``, ``line``, ``nth`` and ``model`` say what it strikes."""
    members = ("body", "route", "line", "nth", "model")
    match = {member: more.pop(member) for member in members if member in more}
    limit = {} if times is None else {"times": times}
    return {"fault": name, "match": match, **limit, **more}


def remote_batch(provider: SandboxProcess, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the provider's own object of a batch of ours."""
    return provider.control("GET", f"/v1/batches/{batch['provider_batch_id']}")


def uploaded(provider: SandboxProcess, batch: dict[str, Any]) -> list[bytes]:
    """Return the lines of the input file, as they came."""
    return _lines(provider, remote_batch(provider, batch)["input_file_id"])


def written(provider: SandboxProcess, batch: dict[str, Any]) -> dict[str, bytes]:
    """Return the lines of the output file by the custom_id on the wire, as they were written."""
    lines = _lines(provider, remote_batch(provider, batch)["output_file_id"])
    return {json.loads(line)["custom_id"]: line for line in lines}


def _lines(provider: SandboxProcess, file_id: str) -> list[bytes]:
    content = provider.fetch("GET", f"/v1/files/{file_id}/content")
    assert content.endswith(b"\n")
    return content[:-1].split(b"\n")
