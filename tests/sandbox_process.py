"""The sandbox as tests use it: started as its own process on a free port, and driven over HTTP.

Usable by any test that needs a provider on a real socket::

    with SandboxProcess.start(tmp_path, speed=20, scenario={"rules": [...]}) as sandbox:
        client = OpenAI(base_url=sandbox.base_url, api_key="any")

Knows the command line and ``/sandbox``; imports nothing of the sandbox itself.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_READY = re.compile(r"ready on (http://\S+)/v1")


class SandboxProcess:
    """One running sandbox."""

    def __init__(self, data_dir: Path, arguments: list[str], api_key: str | None) -> None:
        self.data_dir = data_dir
        self.api_key = api_key
        self._arguments = arguments
        self._process, self.url = self._spawn(port=None)

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int = 0,
        scenario: dict[str, Any] | str | None = None,
        speed: float = 1.0,
        seed: int = 0,
        api_key: str | None = None,
    ) -> SandboxProcess:
        """Start a sandbox and wait until it listens. ``scenario``: its JSON, a file or a name."""
        data_dir.mkdir(parents=True, exist_ok=True)
        arguments = ["--port", str(port), "--speed", str(speed), "--seed", str(seed)]
        if isinstance(scenario, dict):
            path = data_dir / "scenario.json"
            path.write_text(json.dumps(scenario))
            scenario = str(path)
        if scenario is not None:
            arguments += ["--scenario", scenario]
        if api_key is not None:
            arguments += ["--api-key", api_key]
        return cls(data_dir, arguments, api_key)

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as base_url."""
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        return self._process.pid

    def set_scenario(self, scenario: dict[str, Any] | str) -> None:
        """Replace the scenario by JSON, or by a ready-made one's name."""
        if isinstance(scenario, str):
            self.control("PUT", f"/sandbox/scenario?ready_made={scenario}")
        else:
            self.control("PUT", "/sandbox/scenario", scenario)

    def clear_scenario(self) -> None:
        self.control("DELETE", "/sandbox/scenario")

    def stats(self) -> dict[str, Any]:
        return self.control("GET", "/sandbox/stats")

    def lines(self, batch_id: str) -> list[dict[str, Any]]:
        """Return a batch's input lines and what became of them."""
        raw = self.fetch("GET", f"/sandbox/batches/{batch_id}/lines")
        return [json.loads(line) for line in raw.splitlines()]

    def advance_clock(self, seconds: float) -> None:
        self.control("POST", "/sandbox/clock", {"advance_s": seconds})

    def reset(self) -> None:
        """Forget files, batches and counts; back to the scenario of the start."""
        self.control("POST", "/sandbox/reset")

    def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.fetch(method, path, body))
        return answer

    def fetch(self, method: str, path: str, body: object = None) -> bytes:
        """Return the bytes of any call's answer; raise urllib's HTTPError when it is an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.api_key or 'any'}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            content: bytes = response.read()
        return content

    def stop(self) -> int:
        """Tell it to stop, and return its exit code; SIGKILL after 5 seconds."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it at once, as a power cut would."""
        return self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again in the same folder, on the same port; ends it first where it runs."""
        self.stop()
        self._process, self.url = self._spawn(port=int(self.url.rpartition(":")[2]))

    def errors(self) -> str:
        """Return what it said on stderr."""
        return (self.data_dir / "stderr.txt").read_text()

    def _end(self, number: signal.Signals) -> int:
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def _spawn(self, port: int | None) -> tuple[subprocess.Popen[str], str]:
        arguments = [*self._arguments, "--data", str(self.data_dir / "state")]
        if port is not None:
            arguments += ["--port", str(port)]
        with (self.data_dir / "stderr.txt").open("a") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "sandbox", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        return process, self._await_ready(process)

    def _await_ready(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        deadline = time.monotonic() + 20
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(timeout=0.2):
                    continue
                line = process.stdout.readline()
                if found := _READY.search(line):
                    return found[1]
                if not line:
                    break
        process.kill()
        process.wait(timeout=5)
        process.stdout.close()
        raise AssertionError(f"the sandbox did not start: {self.errors()}")
