"""Ask a Batcher of its own whatever its OpenAPI document allows, for as long as you like: `make fuzz`.

Starts everything on a fresh folder (with DATABASE_URL in the environment: on that database) with the sandbox as
provider, so that requests travel while they are asked about. Ends with 1 when something was found.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path

from tests.openapi.asking import ROOT, ask
from tests.wiring.processes import environment, running, wait_for


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def main() -> int:
    """Read the command line, start, ask, stop."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long (default 600)")
    parser.add_argument("--seed", type=int, help="of an earlier run, to have it again")
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    key, port = f"bm_live_{secrets.token_urlsafe(38)}"[:59], _free_port()
    more = {name: os.environ[name] for name in ("DATABASE_URL",) if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="batcher-fuzz-") as folder:
        log = Path(folder) / "log"
        more |= {"PORT": port, "BATCHER_SANDBOX_PORT": _free_port()}
        env = environment(Path(folder), BATCHER_BOOTSTRAP_API_KEY=key, **more)
        with running(str(ROOT / "manage.py"), "run", env=env, log=log):
            wait_for(lambda: "Stop with" in log.read_text(), timeout_s=60, what="the greeting")
            how = (f"--max-time={options.seconds}", f"--seed={seed}", "--max-examples=200")
            asked = ask(f"http://127.0.0.1:{port}", key, *how)
        traces = [t.partition("\n\n")[0] for t in log.read_text().split("Traceback ")[1:]]
    sys.stdout.write("".join(f"Traceback {trace[:3_000]}\n" for trace in traces[:10]))
    return 1 if asked.returncode or traces else 0


if __name__ == "__main__":
    sys.exit(main())
