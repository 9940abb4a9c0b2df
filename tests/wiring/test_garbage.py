from __future__ import annotations

import gc

import pytest

from batcher import garbage


@pytest.fixture(autouse=True)
def as_before():
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_what_is_loaded_is_left_out_and_the_rest_looked_at_less_often():
    _, older, oldest = gc.get_threshold()
    loaded = [[n] for n in range(1_000)]

    garbage.look_less()

    assert gc.get_freeze_count() > len(loaded)
    assert gc.get_threshold() == (20_000, older, oldest)


def test_garbage_is_still_found():
    garbage.look_less()
    ring: list[object] = []
    ring.append(ring)
    del ring

    assert gc.collect() >= 1
