"""How many rows of each kind ``console_rows`` makes, and the SQL that the two databases spell differently."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection
from django.utils import timezone

_IN_BATCH, _HELD_IN_BATCH = 250, 40
LINE = 6
"""The lane that all batches in line stand in, when rows are held."""
_SPAN_S, _HELD_SPAN_S = 14 * 24 * 3600, 30 * 3600
_BORDERS, _HELD_BORDERS = (50, 940, 955, 985, 993, 995), (60, 830, 850, 890, 960, 1000)
"""Thousandths of all requests; of those to look at, a larger part is under way."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many rows; the borders are numbers of requests, in the order in which they came."""

    requests: int
    attempts: int
    history: int
    """Rows of history for each request that has ended."""
    is_held: bool = False
    """Nothing is due for a day: for a panel to look at while workers run beside it."""

    @property
    def span_s(self) -> int:
        """Seconds from the first request to the last."""
        return _HELD_SPAN_S if self.is_held else _SPAN_S

    @property
    def in_batch(self) -> int:
        """Requests in each batch but the first."""
        return _HELD_IN_BATCH if self.is_held else _IN_BATCH

    @property
    def big(self) -> int:
        """The last request of the big first batch."""
        return self._border(0)

    @property
    def ended(self) -> int:
        """The last one that has ended; then those due, at the provider, in line, in open batches, unpacked."""
        return self._border(1)

    @property
    def due(self) -> int:
        return self._border(2)

    @property
    def held(self) -> int:
        return self._border(3)

    @property
    def in_line(self) -> int:
        return self._border(4)

    @property
    def packed(self) -> int:
        return self._border(5)

    @property
    def batches(self) -> int:
        return 1 + (self.packed - self.big) // self.in_batch

    def _border(self, which: int) -> int:
        thousandths = (_HELD_BORDERS if self.is_held else _BORDERS)[which]
        return self.requests * thousandths // 1000 // self.in_batch * self.in_batch


class Sql:
    """Words that the two databases spell differently; each takes SQL and returns SQL."""

    def __init__(self) -> None:
        self.is_postgresql = connection.vendor == "postgresql"
        moment = timezone.now()
        self.now = str(moment) if self.is_postgresql else str(moment.replace(tzinfo=None))

    def ago(self, seconds: str) -> str:
        if self.is_postgresql:
            return f"(timestamptz '{self.now}' - ({seconds}) * interval '1 second')"
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', '{self.now}', (-({seconds})) || ' seconds')"

    def after(self, column: str, seconds: str) -> str:
        if self.is_postgresql:
            return f"({column} + ({seconds}) * interval '1 second')"
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {column}, ({seconds}) || ' seconds')"

    def due(self, size: Size) -> str:
        return self.ago("-86400" if size.is_held else "n %% 7200 - 3600")

    def key(self, prefix: str, number: str = "n") -> str:
        if self.is_postgresql:
            return f"('{prefix}_' || lpad(({number})::text, 32, '0'))"
        return f"('{prefix}_' || printf('%%032d', {number}))"

    def text(self, beginning: str, number: str = "n") -> str:
        return f"('{beginning}' || ({number}))"

    def binary(self, text: str) -> str:
        return f"convert_to({text}, 'UTF8')" if self.is_postgresql else f"CAST({text} AS blob)"

    def yes(self, condition: str) -> str:
        return (
            f"({condition})" if self.is_postgresql else f"(CASE WHEN {condition} THEN 1 ELSE 0 END)"
        )
