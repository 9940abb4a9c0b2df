"""How many tokens a request will take up in the provider's queue, before anyone has counted them.

An estimate on the safe side: bytes of the body over bytes per token, and a margin. Intake asks once
per request; packing and admission add the answers up.
"""

from __future__ import annotations

import math

BYTES_PER_TOKEN = 3.5
MARGIN = 1.10


def estimate(body: bytes) -> int:
    """Return the estimated input tokens of a request with this JSON body; at least 1."""
    return max(1, math.ceil(len(body) / BYTES_PER_TOKEN * MARGIN))
