"""A supervisor for tests: `python -m tests.wiring.keep '{"name": ["program", …]}'`, with short patience."""

from __future__ import annotations

import json
import os
import sys

from batcher import supervisor


def main() -> int:
    """Keep the given commands alive until a signal."""
    supervisor.STOP_AFTER_S = 1.0
    supervisor.FAILURES_ALLOWED = 2
    keeper = supervisor.Supervisor(json.loads(sys.argv[1]), environment=os.environ)
    return keeper.run(when_started=lambda: True)


if __name__ == "__main__":
    sys.exit(main())
