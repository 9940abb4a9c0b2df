"""A run of Schemathesis against a server that listens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


def ask(url: str, key: str, *options: str, **how) -> subprocess.CompletedProcess[str]:
    """Ask the server at ``url`` whatever its OpenAPI document allows, and more."""
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG, "run"]
    command += [f"{url}/api/openapi.json", "-H", f"Authorization: Bearer {key}", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    return subprocess.run(command, env=env, text=True, check=False, **how)
