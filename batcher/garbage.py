"""How often Python looks for garbage, and in what: set once, when a process has loaded what it needs.

Web processes and workers call it; so do the benchmarks, for both of their sides.
"""

from __future__ import annotations

import gc
from typing import Final

_MADE_BETWEEN_LOOKS: Final = 20_000
"""Thirty times Python's own figure. Thousands of results are under way at a time, and none is garbage."""


def look_less() -> None:
    """Leave what is loaded by now out of every later look, and look less often at the rest.

    What is loaded stays: a full look through it holds up a call for 70 ms and a delivery of results for 100.
    """
    gc.collect()
    gc.freeze()
    _, older, oldest = gc.get_threshold()
    gc.set_threshold(_MADE_BETWEEN_LOOKS, older, oldest)
