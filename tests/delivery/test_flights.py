"""Which waiting result leaves next: fair over destinations, and with room left for the next one."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from delivery.flights import Flights


def filled(most: int, destinations: int, each: int, slots: int) -> Flights[int]:
    flights: Flights[int] = Flights(most)
    for destination in range(destinations):
        flights.allow(destination, slots)
        for number in range(each):
            flights.put(destination, number)
    return flights


def started(flights) -> Counter[int]:
    return Counter(destination for destination, _ in flights.start())


def test_a_destination_keeps_to_its_slots():
    flights = filled(most=100, destinations=1, each=9, slots=4)

    assert started(flights) == {0: 4}
    flights.land(0)
    assert started(flights) == {0: 1}
    assert flights.waiting == 4


def test_without_slots_nothing_leaves_and_what_waits_can_be_taken_back():
    flights = filled(most=100, destinations=2, each=3, slots=0)

    assert started(flights) == {}
    assert flights.withdraw(0) == [0, 1, 2]
    assert flights.withdraw(0) == []
    assert flights.waiting == 3


def test_however_many_hang_the_next_one_finds_room():
    flights = filled(most=64, destinations=40, each=50, slots=32)
    started(flights)
    flights.allow(99, 32)
    flights.put(99, 1)

    assert started(flights)[99] == 1


def test_one_of_each_leaves_before_the_second_of_any():
    flights = filled(most=100, destinations=3, each=2, slots=9)

    assert [destination for destination, _ in flights.start()] == [0, 1, 2, 0, 1, 2]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.booleans()), max_size=80),
    st.integers(1, 12),
)
def test_whatever_comes_and_goes_nothing_is_lost_or_over_its_slots(steps, slots):
    flights: Flights[int] = Flights(16)
    put = gone = 0
    air: list[int] = []
    for destination in range(5):
        flights.allow(destination, slots)
    for destination, count, lands in steps:
        for _ in range(count):
            flights.put(destination, 1)
        put += count
        if lands and air:
            flights.land(air.pop(0))
        leaving = [d for d, _ in flights.start()]
        air += leaving
        gone += len(leaving)

        assert max(Counter(air).values(), default=0) <= slots
        assert put == gone + flights.waiting
