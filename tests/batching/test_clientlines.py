"""Finding a custom_id that a file has twice, without holding them all."""

from __future__ import annotations

import sys

from batching.clientlines import Seen


def test_each_custom_id_is_new_once_however_many_there_are():
    seen = Seen()
    names = [f"line-{number}" for number in range(20_000)]

    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)


def test_what_is_remembered_stays_far_below_a_set():
    seen = Seen()
    for number in range(20_000):
        seen.add(f"line-{number}")

    assert sys.getsizeof(seen._table) <= 20_000 * 56
