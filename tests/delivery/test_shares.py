"""However many senders ask, in whatever order, together they keep to the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from delivery import shares

LEASE_S = 60.0


def take(held, sender, *, limit=32, flying=0, now=0.0):
    return shares.take(held, sender, limit=limit, flying=flying, now_s=now, until_s=now + LEASE_S)


def test_one_alone_gets_all():
    assert take({}, "a").slots == 32


def test_what_another_holds_is_not_given_twice():
    held = take({}, "a", flying=32).shares

    assert take(held, "b").slots == 0


def test_who_asks_in_vain_gets_his_half_when_the_other_asks_next():
    held = take(take({}, "a", flying=32).shares, "b").shares

    first = take(held, "a", flying=32)
    assert first.slots == 16
    landed = take(first.shares, "a", flying=16)

    assert take(landed.shares, "b").slots == 16


def test_a_share_that_ended_is_free_again():
    held = take({}, "dead", flying=32).shares

    assert take(held, "b", now=LEASE_S + 1).slots == 32


def test_nothing_is_given_while_nothing_may_be_sent():
    assert take({}, "a", limit=0).slots == 0


def test_who_leaves_frees_his_share():
    held = shares.leave(take({}, "a", flying=32).shares, "a", now_s=1.0)

    assert held == {}


ASKS = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 100)), max_size=60)


@given(ASKS, st.integers(1, 64))
def test_together_they_never_have_more_in_flight_than_the_limit(asks, limit):
    held, flying = {}, dict.fromkeys("abcde", 0)
    allowed = dict(flying)
    for sender, wish in asks:
        share = take(held, sender, limit=limit, flying=max(flying[sender], allowed[sender]))
        held, allowed[sender] = share.shares, share.slots
        # Each fills its slots as it likes; what is above them has still to land.
        flying[sender] = min(allowed[sender], wish)

        assert sum(flying.values()) <= limit
        assert sum(max(flying[s], allowed[s]) for s in flying) <= limit
