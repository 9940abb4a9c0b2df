"""Calls that wait: one question for all of them, woken by what they want, and never more than there are seats."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.db import connection

from batching.api import waiting
from batching.api.waiting import Watch, seat


class World:
    """Where things come to be; counts how often it is asked, and for what."""

    def __init__(self):
        self.there, self.asked, self.problems = set(), [], []

    def find(self, wanted):
        self.asked.append(set(wanted))
        if self.problems:
            raise self.problems.pop()
        return self.there & set(wanted)


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.01)
    return World()


def all_waiting(watch, count):
    pause = threading.Event()
    while sum(map(len, watch._wanted.values())) < count:
        pause.wait(0.01)


def looker_gone(watch):
    pause = threading.Event()
    while watch._is_looking:
        pause.wait(0.01)
    return True


@pytest.mark.django_db(transaction=True)
def test_all_who_wait_are_told_by_one_question_at_a_time(world):
    watch = Watch(world.find)
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(watch.wait, n % 10, 30) for n in range(20)]
        all_waiting(watch, 20)
        looks = len(world.asked)
        world.there = set(range(10))

        assert all(call.result() for call in calls)

    assert len(world.asked) <= looks + 2
    assert set(range(10)) in world.asked
    assert not watch._wanted
    assert looker_gone(watch)


@pytest.mark.django_db(transaction=True)
def test_only_the_one_whose_thing_came_is_told(world):
    watch = Watch(world.find)
    with ThreadPoolExecutor(2) as pool:
        theirs, mine = pool.submit(watch.wait, "theirs", 0.3), pool.submit(watch.wait, "mine", 30)
        world.there = {"mine"}

        assert (mine.result(), theirs.result()) == (True, False)


@pytest.mark.django_db(transaction=True)
def test_a_look_that_fails_is_made_again(world, caplog):
    watch = Watch(world.find)
    world.there, world.problems = {1}, [ValueError("away")]

    assert watch.wait(1, 30)
    assert "look for those who wait failed" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_holds_no_connection(world):
    watch = Watch(world.find)
    connection.ensure_connection()

    assert not watch.wait(1, 0.05)

    assert connection.connection is None


@pytest.mark.django_db(transaction=True)
def test_many_wake_at_once_and_go_on_a_few_at_a_time(world, monkeypatch):
    monkeypatch.setattr(waiting, "_workplaces", threading.BoundedSemaphore(2))
    watch, gate, at_once = Watch(world.find), threading.Lock(), Counter()

    def call():
        with waiting.at_work():
            was_told = watch.wait("it", 30)
            with gate:
                at_once["now"] += 1
                at_once["most"] = max(at_once["most"], at_once["now"])
            threading.Event().wait(0.01)
            with gate:
                at_once["now"] -= 1
            return was_told

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(call) for _ in range(20)]
        all_waiting(watch, 20)
        world.there = {"it"}

        assert all(call.result() for call in calls)
    assert 1 <= at_once["most"] <= 2


@pytest.mark.django_db(transaction=True)
def test_a_call_that_waited_leaves_its_thread_no_connection(world):
    watch = Watch(world.find)
    with waiting.at_work():
        watch.wait(1, 0.05)
        connection.ensure_connection()

    assert connection.connection is None


def test_seats_are_bounded_and_given_back(settings):
    settings.BATCHER_WAITERS = 2
    with seat(1) as first, seat(2) as second, seat(3) as third, seat(4, is_wanted=False) as unasked:
        given = [each.is_given for each in (first, second, third, unasked)]
        assert given == [True, True, False, False]
        assert (third.why_not, unasked.why_not) == ("2 calls wait already", "")
    with seat(3) as again:
        assert again.is_given


@pytest.mark.parametrize(("percent", "share"), [(1, 1), (50, 2), (75, 3), (100, 4)])
def test_a_key_has_its_share_of_the_seats_and_one_at_least(settings, percent, share):
    settings.BATCHER_WAITERS, settings.BATCHER_WAITERS_PER_KEY_PERCENT = 4, percent
    with ExitStack() as held:
        given = [held.enter_context(seat(1)).is_given for _ in range(5)]
    assert given == [True] * share + [False] * (5 - share)
    with seat(1) as again:
        assert again.is_given


def test_seats_are_given_out_once_each_whoever_comes_at_once(settings):
    settings.BATCHER_WAITERS = 5
    start, leave, got = threading.Barrier(20), threading.Barrier(20), []

    def sit(number):
        start.wait(30)
        with seat(number) as mine:
            got.append(mine.is_given)
            leave.wait(30)

    with ThreadPoolExecutor(20) as pool:
        [call.result() for call in [pool.submit(sit, number) for number in range(20)]]

    assert sorted(got) == [False] * 15 + [True] * 5
